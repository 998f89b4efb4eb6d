-- Accounts, in place of files: a row each, as a line of a list of JSON lines has it, without its id.
CREATE SEQUENCE accounts_version;
CREATE TABLE accounts (
    id text PRIMARY KEY,
    version bigint NOT NULL,
    deleted boolean NOT NULL DEFAULT false,
    config jsonb NOT NULL CHECK (jsonb_typeof(config) = 'object' AND octet_length(config::text) <= 131072),
    -- The password, sealed with a key that is not in the database; NULL where `config` says where it comes from.
    secret bytea CHECK (octet_length(secret) <= 131072)
);
-- Whether anything changed is asked often: the sum of the versions, from this index alone.
CREATE INDEX accounts_by_version ON accounts (version);

-- Whoever writes a row, of whatever program, gives it a version that is higher than all before: so the sum grows with each change,
-- in whatever order they are committed.
CREATE FUNCTION raise_version() RETURNS trigger LANGUAGE plpgsql AS $function$
BEGIN
    NEW.version := nextval('idlewatch.accounts_version');
    RETURN NEW;
END
$function$;
CREATE TRIGGER raise_version BEFORE INSERT OR UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION raise_version();

UPDATE version SET number = 3;
