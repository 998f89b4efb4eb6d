-- What is kept of OAuth grants: rotated refresh tokens. Whoever uses one has its turn until it has written what came of it.
CREATE TABLE tokens (
    name text PRIMARY KEY,
    -- JSON, sealed where `is_sealed`; NULL where nothing is kept yet.
    kept bytea CHECK (octet_length(kept) <= 524288),
    is_sealed boolean NOT NULL DEFAULT false,
    taken_by text NOT NULL DEFAULT '',
    taken_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);
UPDATE version SET number = 4;
