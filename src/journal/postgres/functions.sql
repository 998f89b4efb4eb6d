-- All that is done by one statement each, as it is done now.
UPDATE version SET number = 5;
DROP FUNCTION IF EXISTS commit_round, end_rounds, look, claim_shards, release_shards;

-- Which start of a monitor has a name: one that did not hear that it got it knows itself again.
ALTER TABLE nodes ADD COLUMN life text NOT NULL DEFAULT '';

-- Events that were not what was written when they were to be told: nobody is told of them. For a person to look at.
CREATE TABLE damaged (
    node     text NOT NULL,
    sequence bigint NOT NULL,
    shard    int,
    action   text NOT NULL,
    payload  text NOT NULL,
    crc      bigint NOT NULL,
    found_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The number behind which our stream goes on. Where the database knows of fewer than were given, as a standby that lagged
-- behind, some of what it has may be back: moved to others before, while our outputs have passed its numbers. So all of it
-- gets new ones, which no output has passed.
CREATE FUNCTION last_given(my_name text, known_last bigint, least_last bigint) RETURNS bigint LANGUAGE plpgsql AS $function$
DECLARE
    moved bigint;
BEGIN
    IF known_last >= least_last THEN
        RETURN known_last;
    END IF;
    UPDATE events AS e SET sequence = least_last + places.place,
        had = e.had || (SELECT coalesce(array_agg(l.name), '{}') FROM lanes AS l WHERE l.node = my_name AND l.position >= e.sequence)
    FROM (SELECT sequence, row_number() OVER (ORDER BY sequence) AS place FROM events WHERE node = my_name) AS places
    WHERE e.node = my_name AND e.sequence = places.sequence;
    GET DIAGNOSTICS moved = ROW_COUNT;
    RETURN least_last + moved;
END
$function$;

-- One round of the monitor that holds `my_epoch` of `my_name`: steps in their order, then the events of the entries that
-- were stored. Of what belongs to a shard that is another's (`shard_of`, by entry) nothing is.
-- No row: the name is another's, or the round is over.
CREATE FUNCTION commit_round(my_name text, my_epoch bigint, my_round bigint, least_last bigint, steps jsonb,
    shard_of int[], entry_of int[], actions text[], payloads text[], sums bigint[])
RETURNS TABLE (first_sequence bigint, stored_entries boolean[]) LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    held  nodes;
    step  record;
    ours  int[];
    kept  boolean[];
    base  bigint;
    added bigint;
BEGIN
    SELECT * INTO held FROM nodes WHERE name = my_name AND epoch = my_epoch FOR UPDATE;
    IF NOT FOUND OR held.round >= my_round THEN
        RETURN;
    END IF;
    -- Before places of outputs are stored, which would say that they had what they only passed.
    base := last_given(my_name, held.last, least_last);
    -- The fence: whoever claims a shard waits for us, and we see what was claimed.
    SELECT array_agg(id) INTO ours FROM (
        SELECT id FROM shards WHERE id = ANY (shard_of) AND owner = my_name ORDER BY id FOR SHARE) AS fenced;
    SELECT coalesce(array_agg(shard IS NULL OR coalesce(shard = ANY (ours), false) ORDER BY place), '{}') INTO kept
    FROM unnest(shard_of) WITH ORDINALITY AS entries (shard, place);
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
            INSERT INTO cursors (shard, account, mailbox, uid_validity, uid_next, seen, modseq, blind_since, look_back,
                changes, gone, updated_at, crc)
            VALUES (shard_of[step.entry], step.account, step.mailbox, step.uid_validity, step.uid_next, step.seen, step.modseq,
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
            -- Of other shards others say it.
            UPDATE cursors SET absent_since = step.at FROM shards
            WHERE shards.id = cursors.shard AND shards.owner = my_name AND absent_since IS NULL AND NOT EXISTS (
                SELECT FROM jsonb_array_elements_text(step.accounts) AS there (id) WHERE there.id = account);
            UPDATE cursors SET absent_since = NULL FROM shards
            WHERE shards.id = cursors.shard AND shards.owner = my_name AND absent_since IS NOT NULL AND EXISTS (
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
            WHERE node = my_name AND name = step.host;
        END CASE;
    END LOOP;
    INSERT INTO events (node, sequence, shard, action, payload, crc)
    SELECT my_name, base + row_number() OVER (ORDER BY e.place), shard_of[e.entry], e.action, e.payload, e.crc
    FROM unnest(entry_of, actions, payloads, sums) WITH ORDINALITY AS e(entry, action, payload, crc, place)
    WHERE kept[e.entry];
    GET DIAGNOSTICS added = ROW_COUNT;
    UPDATE nodes SET seen = clock_timestamp(), last = base + added, round = my_round, answered = my_round,
        first = base + 1, stored = kept WHERE name = my_name;
    RETURN QUERY SELECT base + 1, kept;
END
$function$;

-- From here on no round up to `my_round` stores anything any more; what the last one that did was answered.
CREATE FUNCTION end_rounds(my_name text, my_epoch bigint, my_round bigint)
RETURNS TABLE (answered_round bigint, first_sequence bigint, stored_entries boolean[]) LANGUAGE plpgsql AS $function$
DECLARE
    held nodes;
BEGIN
    SELECT * INTO held FROM nodes WHERE name = my_name AND epoch = my_epoch FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE nodes SET round = greatest(held.round, my_round) WHERE name = my_name;
    RETURN QUERY SELECT held.answered, held.first, held.stored;
END
$function$;

-- Shows that we live, and who else does, with what they have. No row: the name is another's.
CREATE FUNCTION look(my_name text, my_epoch bigint, my_alive_at bigint, my_info jsonb)
RETURNS TABLE (name text, owner text, epoch bigint, seen text, ttl bigint, is_settled boolean, is_draining boolean,
    held int[], pinned int[], last_sequence bigint, has_own_events boolean) LANGUAGE plpgsql AS $function$
#variable_conflict use_column
BEGIN
    UPDATE nodes SET seen = clock_timestamp(), alive_at = my_alive_at, info = my_info
    WHERE name = my_name AND epoch = my_epoch;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    RETURN QUERY
    SELECT coalesce(n.name, s.owner), coalesce(n.owner, ''), coalesce(n.epoch, 0), coalesce(n.seen::text, ''),
        coalesce(n.ttl, 0), coalesce(clock_timestamp() - n.since >= n.ttl * interval '1 millisecond', false),
        coalesce(n.draining, false), coalesce(s.held, '{}'),
        coalesce((SELECT array_agg(p.shard) FROM pins AS p WHERE p.node = n.name), '{}'), coalesce(n.last, 0),
        -- Asked of those only who may be dead, or have left.
        CASE WHEN n.owner = '' OR clock_timestamp() - n.seen > n.ttl * interval '1 millisecond'
            THEN EXISTS (SELECT FROM events AS e WHERE e.node = n.name AND e.shard IS NULL) ELSE false END
    FROM nodes AS n FULL JOIN (
        SELECT h.owner, array_agg(h.id) AS held FROM shards AS h WHERE h.owner <> '' GROUP BY h.owner) AS s
    ON s.owner = n.name;
END
$function$;

-- Those of the shards that are nobody's, or a dead one's: one of whom nothing was seen since. What of their events waits
-- for outputs comes with them, into our stream, and says which outputs had it there; so does what the dead, and those
-- who left, have said of themselves. No row: the name is another's.
CREATE FUNCTION claim_shards(my_name text, my_epoch bigint, least_last bigint, ids int[], dead text[], seen_then text[])
RETURNS TABLE (claimed int[], last_sequence bigint, moved bigint) LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    held  nodes;
    gone  text[];
    mine  int[];
    base  bigint;
    added bigint;
BEGIN
    SELECT * INTO held FROM nodes WHERE name = my_name AND epoch = my_epoch FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT coalesce(array_agg(n.name), '{}') INTO gone
    FROM nodes AS n LEFT JOIN unnest(dead, seen_then) AS d (name, seen) ON d.name = n.name
    WHERE n.name <> my_name AND (n.owner = '' OR n.seen::text = d.seen);
    PERFORM FROM shards WHERE id = ANY (ids) ORDER BY id FOR UPDATE;
    SELECT coalesce(array_agg(s.id ORDER BY s.id), '{}') INTO mine FROM shards AS s
    WHERE s.id = ANY (ids) AND (s.owner = '' OR s.owner = ANY (gone) OR s.owner NOT IN (SELECT name FROM nodes));
    UPDATE cursors AS c SET blind_since = since.alive_at FROM (
        SELECT s.id, coalesce(n.alive_at, s.alive_at) AS alive_at FROM shards AS s LEFT JOIN nodes AS n ON n.name = s.owner
        WHERE s.id = ANY (mine)) AS since
    WHERE c.shard = since.id AND c.blind_since IS NULL AND since.alive_at IS NOT NULL;
    UPDATE shards SET owner = my_name, epoch = epoch + 1 WHERE id = ANY (mine);
    base := last_given(my_name, held.last, least_last);
    WITH old AS MATERIALIZED (
        SELECT e.node, e.sequence FROM events AS e
        WHERE e.node <> my_name AND (e.shard = ANY (mine) OR e.shard IS NULL AND e.node = ANY (gone))
        ORDER BY e.node, e.sequence FOR UPDATE
    ), taken AS (
        DELETE FROM events AS e USING old WHERE e.node = old.node AND e.sequence = old.sequence
        RETURNING e.node, e.sequence, e.shard, e.action, e.payload, e.crc, e.had
    )
    INSERT INTO events (node, sequence, shard, action, payload, crc, had)
    SELECT my_name, base + row_number() OVER (ORDER BY t.node, t.sequence), t.shard, t.action, t.payload, t.crc,
        t.had || (SELECT coalesce(array_agg(l.name), '{}') FROM lanes AS l WHERE l.node = t.node AND l.position >= t.sequence)
    FROM taken AS t;
    GET DIAGNOSTICS added = ROW_COUNT;
    UPDATE nodes SET seen = clock_timestamp(), last = base + added WHERE name = my_name;
    RETURN QUERY SELECT mine, base + added, added;
END
$function$;

-- Others may have them from now on. No row: the name is another's.
CREATE FUNCTION release_shards(my_name text, my_epoch bigint, ids int[], my_alive_at bigint)
RETURNS TABLE (released bigint) LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    freed bigint;
BEGIN
    PERFORM FROM nodes WHERE name = my_name AND epoch = my_epoch FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    -- In the order in which all lock them: whoever takes us for dead may be at it.
    PERFORM FROM shards WHERE owner = my_name AND id = ANY (ids) ORDER BY id FOR UPDATE;
    UPDATE shards SET owner = '', epoch = epoch + 1, alive_at = my_alive_at WHERE owner = my_name AND id = ANY (ids);
    GET DIAGNOSTICS freed = ROW_COUNT;
    RETURN QUERY SELECT freed;
END
$function$;

-- Others need not wait until we look dead. No row: the name is another's.
CREATE FUNCTION leave(my_name text, my_epoch bigint)
RETURNS TABLE (released bigint) LANGUAGE plpgsql AS $function$
#variable_conflict use_column
DECLARE
    left_at bigint;
    freed   bigint;
BEGIN
    UPDATE nodes SET owner = '', epoch = epoch + 1 WHERE name = my_name AND epoch = my_epoch RETURNING alive_at INTO left_at;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    PERFORM FROM shards WHERE owner = my_name ORDER BY id FOR UPDATE;
    UPDATE shards SET owner = '', epoch = epoch + 1, alive_at = left_at WHERE owner = my_name;
    GET DIAGNOSTICS freed = ROW_COUNT;
    RETURN QUERY SELECT freed;
END
$function$;
