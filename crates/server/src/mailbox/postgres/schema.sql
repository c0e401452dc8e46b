-- The schema of version 1. `docs/data-format.md` says what each column means.

CREATE TABLE cluster (
    one bool PRIMARY KEY CHECK (one),
    id uuid NOT NULL,
    parts int NOT NULL,
    shards text[],
    schema int NOT NULL,
    epoch bigint NOT NULL
);
INSERT INTO cluster (one, id, parts, schema, epoch) VALUES (true, gen_random_uuid(), 4096, 1, 0);

CREATE TABLE node (
    id text COLLATE "C" PRIMARY KEY,
    incarnation bigint NOT NULL,
    address text,
    release text,
    min_peer int,
    max_peer int,
    leaving bool NOT NULL DEFAULT false,
    beat bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 30);

CREATE TABLE fence (incarnation bigint PRIMARY KEY);

CREATE TABLE batch (
    incarnation bigint NOT NULL,
    n bigint NOT NULL,
    PRIMARY KEY (incarnation, n)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE part (id smallint PRIMARY KEY, owner bigint NOT NULL, epoch bigint NOT NULL) WITH (fillfactor = 30);
INSERT INTO part (id, owner, epoch) SELECT id, 0, 0 FROM generate_series(0, 4095) AS id;

CREATE TABLE message (
    part smallint NOT NULL,
    seq bigint NOT NULL,
    "user" text COLLATE "C" NOT NULL,
    sender text COLLATE "C" NOT NULL,
    flags smallint NOT NULL,
    waits_for int NOT NULL,
    acknowledged bool NOT NULL,
    received_at bigint NOT NULL,
    expires_at bigint,
    size int NOT NULL,
    origin bigint,
    sender_life bytea,
    body bytea NOT NULL,
    PRIMARY KEY (part, seq)
) WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0,
    toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 20000,
    toast.autovacuum_vacuum_cost_delay = 0
);
ALTER TABLE message ALTER body SET STORAGE EXTERNAL;

CREATE TABLE session (
    part smallint NOT NULL,
    id bigint NOT NULL,
    "user" text COLLATE "C" NOT NULL,
    client text COLLATE "C" NOT NULL,
    slot smallint NOT NULL,
    expiry bigint NOT NULL,
    ends_at bigint,
    will bytea,
    will_delay bigint,
    will_at bigint,
    maybe_sent bigint NOT NULL,
    token bytea,
    PRIMARY KEY (part, id)
) WITH (
    fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0
);

CREATE TABLE subscription (
    part smallint NOT NULL,
    session bigint NOT NULL,
    topic text COLLATE "C" NOT NULL,
    options smallint NOT NULL,
    id bigint,
    PRIMARY KEY (part, session, topic)
);

CREATE TABLE received (
    part smallint NOT NULL,
    session bigint NOT NULL,
    packet_id int NOT NULL,
    origin bigint,
    PRIMARY KEY (part, session, packet_id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE in_flight (
    part smallint NOT NULL,
    session bigint NOT NULL,
    packet_id int NOT NULL,
    state smallint NOT NULL,
    message bigint NOT NULL,
    position bigint NOT NULL,
    PRIMARY KEY (part, session, packet_id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE claim (
    part smallint NOT NULL,
    session bigint NOT NULL,
    message bigint NOT NULL,
    PRIMARY KEY (part, session, message)
);

CREATE TABLE retained (
    part smallint NOT NULL,
    message bigint NOT NULL,
    "user" text COLLATE "C" NOT NULL,
    topic text COLLATE "C" NOT NULL,
    PRIMARY KEY (part, message)
);

CREATE TABLE will (
    part smallint NOT NULL,
    id bigint NOT NULL,
    "user" text COLLATE "C" NOT NULL,
    body bytea NOT NULL,
    token bytea,
    PRIMARY KEY (part, id)
);

CREATE TABLE push (
    part smallint NOT NULL,
    "user" text COLLATE "C" NOT NULL,
    sender text COLLATE "C" NOT NULL,
    message bigint NOT NULL,
    sent bool NOT NULL,
    at bigint NOT NULL,
    expires_at bigint,
    PRIMARY KEY (part, "user", sender)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE owner (
    part smallint NOT NULL,
    "user" text COLLATE "C" NOT NULL,
    email bytea,
    name bytea,
    password bytea,
    made_up bool NOT NULL,
    gone_since bigint,
    PRIMARY KEY (part, "user")
);

CREATE TABLE purge (
    part smallint NOT NULL,
    "user" text COLLATE "C" NOT NULL,
    sender text COLLATE "C" NOT NULL,
    up_to bigint NOT NULL,
    PRIMARY KEY (part, "user", sender)
);

CREATE TABLE clock (
    node text COLLATE "C" PRIMARY KEY,
    time bigint NOT NULL,
    wall_offset bigint NOT NULL,
    boot bigint NOT NULL,
    since_boot bigint NOT NULL,
    proved_offset bigint
);

CREATE TABLE origin (
    part smallint NOT NULL,
    number bigint NOT NULL,
    at bigint NOT NULL,
    PRIMARY KEY (part, number)
);

-- The batches of one incarnation come one after the other, those of a dead connection too: NO KEY UPDATE, which a takeover's
-- DELETE waits for.
CREATE FUNCTION jam_begin(i bigint, k bigint) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
    PERFORM 1 FROM fence WHERE incarnation = i FOR NO KEY UPDATE;
    IF NOT FOUND THEN RAISE EXCEPTION 'fenced' USING ERRCODE = 'JAM01'; END IF;
    INSERT INTO batch SELECT i, k WHERE (SELECT coalesce(max(n), 0) FROM batch WHERE incarnation = i) = k - 1;
    IF NOT FOUND THEN RAISE EXCEPTION 'chain' USING ERRCODE = 'JAM02'; END IF;
END $$;

-- The taker's own row first: one that has been fenced itself takes nothing over. The node's row is deleted, so that a beat
-- that waits for it finds it gone.
CREATE FUNCTION jam_takeover(me bigint, dead text, i bigint, seen bigint, e bigint, mine int2[]) RETURNS SETOF int2
LANGUAGE plpgsql AS $$ BEGIN
    PERFORM 1 FROM fence WHERE incarnation = me FOR KEY SHARE;
    IF NOT FOUND THEN RAISE EXCEPTION 'fenced' USING ERRCODE = 'JAM01'; END IF;
    DELETE FROM node WHERE id = dead AND incarnation = i AND beat = seen;
    IF NOT FOUND THEN RAISE EXCEPTION 'alive' USING ERRCODE = 'JAM03'; END IF;
    DELETE FROM fence WHERE incarnation = i;
    DELETE FROM batch WHERE incarnation = i;
    RETURN QUERY UPDATE part SET owner = me, epoch = e WHERE owner = i AND id = ANY (mine) RETURNING id;
END $$;
