CREATE TABLE version (number int NOT NULL);
INSERT INTO version VALUES (1);

-- Whose the journal is. An epoch is one monitor's; whatever an older one writes is refused.
CREATE TABLE lease (
    id       int PRIMARY KEY CHECK (id = 0),
    owner    text NOT NULL DEFAULT '',
    epoch    bigint NOT NULL DEFAULT 0,
    seen     timestamptz NOT NULL DEFAULT clock_timestamp(),
    ttl      bigint NOT NULL DEFAULT 0,
    alive_at bigint,
    last     bigint NOT NULL DEFAULT 0,
    -- Rounds up to this one are over.
    round    bigint NOT NULL DEFAULT 0,
    -- What the last one that stored something was answered, for whoever did not hear it.
    answered bigint NOT NULL DEFAULT 0,
    first    bigint NOT NULL DEFAULT 0,
    stored   boolean[] NOT NULL DEFAULT '{}'
) WITH (fillfactor = 10);
INSERT INTO lease (id) VALUES (0);

CREATE TABLE events (
    sequence bigint PRIMARY KEY,
    action   text NOT NULL,
    payload  text NOT NULL,
    crc      bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
CREATE TABLE cursors (
    account      text NOT NULL,
    mailbox      text NOT NULL,
    uid_validity bigint NOT NULL,
    uid_next     bigint NOT NULL,
    seen         text NOT NULL,
    modseq       bigint,
    blind_since  bigint,
    look_back    bigint,
    changes      bigint,
    gone         text,
    gone_since   bigint,
    absent_since bigint,
    updated_at   bigint NOT NULL,
    crc          bigint NOT NULL,
    PRIMARY KEY (account, mailbox)
) WITH (fillfactor = 70);
CREATE TABLE lanes (
    name       text PRIMARY KEY,
    position   bigint NOT NULL,
    generation text,
    "offset"   bigint,
    -- On which machine the file is.
    home       text,
    crc        bigint
) WITH (fillfactor = 50);
CREATE TABLE told (
    account     text NOT NULL,
    mailbox     text NOT NULL,
    received_at bigint NOT NULL,
    fingerprint bigint NOT NULL,
    PRIMARY KEY (account, mailbox, received_at, fingerprint)
);
CREATE TABLE refusals (
    account text PRIMARY KEY,
    logins  text NOT NULL
);
CREATE TABLE hosts (
    host        text PRIMARY KEY,
    idle_period bigint NOT NULL
);
CREATE TABLE unpipelined (
    host text PRIMARY KEY
);
