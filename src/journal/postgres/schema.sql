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

-- One round of the monitor that holds `my_epoch`: steps in their order, then the events of the entries that were stored.
-- No row: it is another's, or the round is over.
CREATE FUNCTION commit_round(my_epoch bigint, my_round bigint, least_last bigint, steps jsonb, entries int,
    entry_of int[], actions text[], payloads text[], sums bigint[])
RETURNS TABLE (first_sequence bigint, stored_entries boolean[]) LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    held  lease;
    step  record;
    kept  boolean[] := array_fill(true, ARRAY[entries]);
    -- Numbers that were given are not given again, even where the database has forgotten them.
    base  bigint;
    added bigint;
BEGIN
    SELECT * INTO held FROM lease WHERE id = 0 FOR UPDATE;
    IF held.epoch <> my_epoch OR held.round >= my_round THEN
        RETURN;
    END IF;
    FOR step IN SELECT * FROM jsonb_to_recordset(steps) AS s(entry int, kind text, account text, mailbox text,
        uid_validity bigint, uid_next bigint, seen text, modseq bigint, blind_since bigint, look_back bigint,
        changes bigint, gone text, crc bigint, was_validity bigint, was_next bigint, was_crc bigint, at bigint, logins text, host text,
        period bigint, messages jsonb, trim boolean, day bigint, most bigint, position bigint, generation text, "offset" bigint,
        home text, accounts jsonb)
    LOOP
        CONTINUE WHEN NOT kept[step.entry];
        CASE step.kind
        WHEN 'replace' THEN
            UPDATE cursors SET uid_validity = step.uid_validity, uid_next = step.uid_next, seen = step.seen,
                modseq = step.modseq, blind_since = step.blind_since, look_back = step.look_back,
                changes = step.changes, gone = step.gone, gone_since = NULL, updated_at = step.at, crc = step.crc
            WHERE account = step.account AND mailbox = step.mailbox AND uid_validity = step.was_validity
                AND uid_next = step.was_next AND crc = step.was_crc;
            kept[step.entry] := FOUND;
        WHEN 'begin', 'begin_anew' THEN
            INSERT INTO cursors (account, mailbox, uid_validity, uid_next, seen, modseq, blind_since, look_back, changes,
                gone, updated_at, crc)
            VALUES (step.account, step.mailbox, step.uid_validity, step.uid_next, step.seen, step.modseq,
                step.blind_since, step.look_back, step.changes, step.gone, step.at, step.crc)
            ON CONFLICT DO NOTHING;
            IF FOUND THEN
                -- The first contact is remembered, since nothing is told of what came before it.
                INSERT INTO told (account, mailbox, received_at, fingerprint)
                VALUES (step.account, step.mailbox, step.at, 0) ON CONFLICT DO NOTHING;
            ELSIF step.kind = 'begin' THEN
                kept[step.entry] := false;
            ELSE
                UPDATE cursors SET uid_validity = step.uid_validity, uid_next = step.uid_next, seen = step.seen,
                    modseq = step.modseq, blind_since = step.blind_since, look_back = step.look_back,
                    changes = step.changes, gone = step.gone, gone_since = NULL, absent_since = NULL,
                    updated_at = step.at, crc = step.crc
                WHERE account = step.account AND mailbox = step.mailbox;
            END IF;
        WHEN 'blind' THEN
            UPDATE cursors SET blind_since = step.at
            WHERE account = step.account AND mailbox = step.mailbox AND blind_since IS NULL;
        WHEN 'gone' THEN
            UPDATE cursors SET gone_since = step.at
            WHERE account = step.account AND mailbox = step.mailbox AND gone_since IS NULL;
        WHEN 'configured' THEN
            UPDATE cursors SET absent_since = step.at WHERE absent_since IS NULL AND NOT EXISTS (
                SELECT FROM jsonb_array_elements_text(step.accounts) AS there (id) WHERE there.id = account);
            UPDATE cursors SET absent_since = NULL WHERE absent_since IS NOT NULL AND EXISTS (
                SELECT FROM jsonb_array_elements_text(step.accounts) AS there (id) WHERE there.id = account);
        WHEN 'told' THEN
            INSERT INTO told (account, mailbox, received_at, fingerprint)
            SELECT step.account, step.mailbox, (message->>0)::bigint, (message->>1)::bigint
            FROM jsonb_array_elements(step.messages) AS message ON CONFLICT DO NOTHING;
            IF step.trim THEN
                DELETE FROM told WHERE account = step.account AND mailbox = step.mailbox AND received_at < greatest(
                    (SELECT max(received_at) FROM told
                     WHERE account = step.account AND mailbox = step.mailbox AND fingerprint <> 0) - step.day,
                    (SELECT received_at FROM told WHERE account = step.account AND mailbox = step.mailbox
                     ORDER BY received_at DESC LIMIT 1 OFFSET step.most - 1));
            END IF;
        WHEN 'refusals' THEN
            IF step.logins IS NULL THEN
                DELETE FROM refusals WHERE account = step.account;
            ELSE
                INSERT INTO refusals (account, logins) VALUES (step.account, step.logins)
                ON CONFLICT (account) DO UPDATE SET logins = excluded.logins;
            END IF;
        WHEN 'idle_period' THEN
            INSERT INTO hosts (host, idle_period) VALUES (step.host, step.period)
            ON CONFLICT (host) DO UPDATE SET idle_period = excluded.idle_period;
        WHEN 'no_pipelining' THEN
            INSERT INTO unpipelined (host) VALUES (step.host) ON CONFLICT DO NOTHING;
        WHEN 'position' THEN
            UPDATE lanes SET position = step.position, generation = step.generation, "offset" = step."offset",
                home = step.home, crc = step.crc
            WHERE name = step.host;
        END CASE;
    END LOOP;
    base := greatest(held.last, least_last);
    INSERT INTO events (sequence, action, payload, crc)
    SELECT base + row_number() OVER (ORDER BY e.place), e.action, e.payload, e.crc
    FROM unnest(entry_of, actions, payloads, sums) WITH ORDINALITY AS e(entry, action, payload, crc, place)
    WHERE kept[e.entry];
    GET DIAGNOSTICS added = ROW_COUNT;
    UPDATE lease SET seen = clock_timestamp(), last = base + added, round = my_round, answered = my_round,
        first = base + 1, stored = kept WHERE id = 0;
    RETURN QUERY SELECT base + 1, kept;
END
$function$;

-- From here on no round up to `my_round` stores anything any more; what the last one that did was answered.
CREATE FUNCTION end_rounds(my_epoch bigint, my_round bigint)
RETURNS TABLE (answered_round bigint, first_sequence bigint, stored_entries boolean[]) LANGUAGE plpgsql AS $function$
DECLARE
    held lease;
BEGIN
    SELECT * INTO held FROM lease WHERE id = 0 FOR UPDATE;
    IF held.epoch <> my_epoch THEN
        RETURN;
    END IF;
    UPDATE lease SET round = greatest(held.round, my_round) WHERE id = 0;
    RETURN QUERY SELECT held.answered, held.first, held.stored;
END
$function$;
