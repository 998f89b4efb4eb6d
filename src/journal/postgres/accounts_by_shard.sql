-- Each monitor reads the accounts of its own shards, and of those what changed since it looked.
CREATE FUNCTION shard_of(account text) RETURNS int LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    (get_byte(sha256(convert_to(account, 'UTF8')), 2) & 3) * 256 + get_byte(sha256(convert_to(account, 'UTF8')), 3);

DROP TRIGGER raise_version ON accounts;
ALTER TABLE accounts ADD COLUMN shard int;
UPDATE accounts SET shard = shard_of(id);
ALTER TABLE accounts ALTER COLUMN shard SET NOT NULL;
DROP INDEX accounts_by_version;
CREATE INDEX accounts_by_shard ON accounts (shard, version);

-- The one row says whether there is anything to read. Whoever writes accounts holds it until it commits: so whoever has read
-- what was committed up to a version has missed nothing below it.
CREATE TABLE accounts_changes (
    -- The highest version of a row.
    latest bigint NOT NULL,
    -- When rows went that nobody can read any more: what was read before is to be read anew.
    removed bigint NOT NULL
) WITH (fillfactor = 50);
INSERT INTO accounts_changes SELECT coalesce(max(version), 0), 0 FROM accounts;

-- Of whatever program: it needs no rights but those to write accounts.
CREATE FUNCTION count_change() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = idlewatch, pg_temp AS $function$
BEGIN
    UPDATE accounts_changes SET latest = latest + 1,
        removed = CASE WHEN TG_OP IN ('DELETE', 'TRUNCATE') THEN latest + 1 ELSE removed END;
    RETURN NULL;
END
$function$;
CREATE TRIGGER count_change BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON accounts
    FOR EACH STATEMENT EXECUTE FUNCTION count_change();

CREATE OR REPLACE FUNCTION raise_version() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = idlewatch, pg_temp AS $function$
BEGIN
    NEW.version := (SELECT latest FROM accounts_changes);
    NEW.shard := shard_of(NEW.id);
    IF TG_OP = 'UPDATE' AND NEW.id <> OLD.id THEN
        UPDATE accounts_changes SET removed = latest;
    END IF;
    RETURN NEW;
END
$function$;
CREATE TRIGGER raise_version BEFORE INSERT OR UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION raise_version();
DROP SEQUENCE accounts_version;

UPDATE version SET number = 6;
