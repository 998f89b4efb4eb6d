-- Several monitors share the accounts: each has a name, a stream of events of its own, and some of the shards.
UPDATE version SET number = 2;
-- Those of a monitor of the first version, which cannot go on beside us.
DROP FUNCTION IF EXISTS commit_round, end_rounds;

-- Whoever uses a name holds its row. An epoch is one monitor's; whatever an older one of the name writes is refused.
ALTER TABLE lease RENAME TO nodes;
ALTER TABLE nodes
    DROP COLUMN id,
    -- Of what was here before nobody knew a name: the first that comes gives it its own.
    ADD COLUMN name text PRIMARY KEY DEFAULT '',
    ADD COLUMN since timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- It wants everything, and nobody beside it.
    ADD COLUMN alone boolean NOT NULL DEFAULT false,
    ADD COLUMN draining boolean NOT NULL DEFAULT false,
    ADD COLUMN info jsonb NOT NULL DEFAULT '{}';

-- What changes hands. Events and cursors of a shard are stored by its owner only.
CREATE TABLE shards (
    id       int PRIMARY KEY,
    owner    text NOT NULL DEFAULT '',
    epoch    bigint NOT NULL DEFAULT 0,
    -- Until when its last owner watched.
    alive_at bigint
) WITH (fillfactor = 50);
INSERT INTO shards (id, alive_at) SELECT generate_series(0, 1023), (SELECT alive_at FROM nodes);
-- Where a person wants a shard to be.
CREATE TABLE pins (
    shard int PRIMARY KEY REFERENCES shards,
    node  text NOT NULL
);

ALTER TABLE cursors ADD COLUMN shard int;
UPDATE cursors SET shard =
    ('x' || encode(substring(sha256(convert_to(account, 'UTF8')) FROM 1 FOR 4), 'hex'))::bit(32)::bigint % 1024;
ALTER TABLE cursors ALTER COLUMN shard SET NOT NULL;
CREATE INDEX ON cursors (shard);

ALTER TABLE events
    DROP CONSTRAINT events_pkey,
    ADD COLUMN node text NOT NULL DEFAULT '',
    -- None: it is the monitor's own.
    ADD COLUMN shard int,
    -- The outputs that had it from the monitor that it was taken over from.
    ADD COLUMN had text[] NOT NULL DEFAULT '{}',
    ADD PRIMARY KEY (node, sequence);
ALTER TABLE events ALTER COLUMN node DROP DEFAULT;
CREATE INDEX ON events (shard);

ALTER TABLE lanes DROP CONSTRAINT lanes_pkey, ADD COLUMN node text NOT NULL DEFAULT '', ADD PRIMARY KEY (node, name);
ALTER TABLE lanes ALTER COLUMN node DROP DEFAULT;
