-- Each monitor reads the accounts of its own shards, and of those what changed since it looked.
CREATE FUNCTION shard_of(account text) RETURNS int LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    (get_byte(sha256(convert_to(account, 'UTF8')), 2) & 3) * 256 + get_byte(sha256(convert_to(account, 'UTF8')), 3);

DROP TRIGGER raise_version ON accounts;
-- The transaction that wrote a row: whoever has looked knows what was committed by then, and reads what was not. Versions do not
-- tell that, since they are not committed in their order.
ALTER TABLE accounts ADD COLUMN shard int, ADD COLUMN changed xid8;
UPDATE accounts SET shard = shard_of(id), changed = pg_current_xact_id();
ALTER TABLE accounts ALTER COLUMN shard SET NOT NULL, ALTER COLUMN changed SET NOT NULL;
CREATE INDEX accounts_by_shard ON accounts (shard, changed);

-- Rows that went without a trace.
CREATE TABLE accounts_removed (
    id text NOT NULL,
    shard int NOT NULL,
    changed xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX accounts_removed_by_shard ON accounts_removed (shard, changed);

-- Whoever writes accounts, of whatever program, needs no other right.
CREATE OR REPLACE FUNCTION raise_version() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = idlewatch, pg_temp AS $function$
BEGIN
    NEW.version := nextval('accounts_version');
    NEW.shard := shard_of(NEW.id);
    NEW.changed := pg_current_xact_id();
    IF TG_OP = 'UPDATE' AND NEW.id <> OLD.id THEN
        INSERT INTO accounts_removed (id, shard) VALUES (OLD.id, OLD.shard);
    END IF;
    RETURN NEW;
END
$function$;
CREATE TRIGGER raise_version BEFORE INSERT OR UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION raise_version();

CREATE FUNCTION note_removed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = idlewatch, pg_temp AS $function$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        INSERT INTO accounts_removed (id, shard) SELECT id, shard FROM accounts;
    ELSE
        INSERT INTO accounts_removed (id, shard) VALUES (OLD.id, OLD.shard);
    END IF;
    RETURN OLD;
END
$function$;
CREATE TRIGGER note_removed BEFORE DELETE ON accounts FOR EACH ROW EXECUTE FUNCTION note_removed();
CREATE TRIGGER note_removed_all BEFORE TRUNCATE ON accounts FOR EACH STATEMENT EXECUTE FUNCTION note_removed();
REVOKE EXECUTE ON FUNCTION raise_version(), note_removed() FROM PUBLIC;

UPDATE version SET number = 6;
