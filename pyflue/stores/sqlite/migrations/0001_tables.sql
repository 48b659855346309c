-- Instants are INTEGER microseconds since 1970-01-01 UTC. Bodies are BLOBs, byte for byte as written: no text
-- function ever sees them, so NUL characters and key order survive.
--
-- Unsettled is spelled `settled_at is null`, and no list of three or more stands after `in` in anything that a write
-- evaluates: SQLite builds a temporary table for such a list each time, which made settling four times as costly.

create table sessions (
    id text primary key,
    agent text not null,
    instance_id text not null,
    name text not null,
    head integer not null default 0,          -- number of the last entry
    summary_seq integer not null default 0,   -- number of the last summary entry
    mailbox_head integer not null default 0,  -- grows with every admission, abort, replay and approval
    outbox_head integer not null default 0,   -- position of the last reply
    unsettled integer not null default 0,     -- dispatches without an outcome
    due_at integer,                           -- when a worker should look; null: nothing to do
    lease_owner text,                         -- null: free
    lease_token integer not null default 0,   -- the fence; grows with every lease
    created_at integer not null,
    updated_at integer not null
) strict;
create index sessions_due on sessions (due_at, id) where lease_owner is null and due_at is not null;
create index sessions_held on sessions (lease_owner) where lease_owner is not null;
create index sessions_agent on sessions (agent, id);

create table entries (
    session_id text not null,
    seq integer not null,
    dispatch_id text not null,
    kind text not null,
    token integer not null,
    body blob not null,
    created_at integer not null,
    primary key (session_id, seq)
) strict;

create table admissions (
    source text not null,
    key text not null,
    dispatch_id text not null,
    body_hash blob,
    admitted_at integer not null,
    primary key (source, key)
) strict, without rowid;

create table dispatches (
    id text primary key,
    session_id text not null,
    position integer not null,
    input blob not null,
    status text not null check (
        status = 'queued' or status = 'running' or status = 'waiting'
        or status = 'completed' or status = 'failed' or status = 'aborted'
    ),
    attempts integer not null default 0,
    accepted_at integer not null,
    available_at integer not null,
    started_at integer,
    deadline_at integer,
    expires_at integer,
    abort_requested_at integer,
    settled_at integer,
    result blob,
    error blob,
    event_seq integer not null default 0,
    replay_of text,
    joined_into text,
    answered_by text,
    traceparent text not null default '',
    unique (session_id, position),
    check ((settled_at is not null) = (status = 'completed' or status = 'failed' or status = 'aborted'))
) strict;
create unique index dispatches_one_at_work on dispatches (session_id) where status in ('running', 'waiting');
create index dispatches_unsettled on dispatches (session_id, position) where settled_at is null;
create index dispatches_by_status on dispatches (status, id);

-- One row: unsettled dispatches of the deployment, for the queue limit. Counting them at each admission would cost
-- the backlog's length; triggers keep the number true whatever changes a dispatch.
create table backlog (
    only integer primary key check (only = 1),
    unsettled integer not null
) strict;
insert into backlog (only, unsettled) values (1, 0);
create trigger backlog_grows after insert on dispatches
    when new.settled_at is null
begin
    update backlog set unsettled = unsettled + 1;
end;
create trigger backlog_shrinks after update of settled_at on dispatches
    when old.settled_at is null and new.settled_at is not null
begin
    update backlog set unsettled = unsettled - 1;
end;
create trigger backlog_forgets after delete on dispatches
    when old.settled_at is null
begin
    update backlog set unsettled = unsettled - 1;
end;

create table runs (
    id text primary key,
    workflow text not null,
    dispatch_id text not null,
    input blob,
    status text not null check (
        status = 'queued' or status = 'running'
        or status = 'completed' or status = 'failed' or status = 'aborted'
    ),
    result blob,
    error blob,
    event_seq integer not null default 0,
    created_at integer not null,
    settled_at integer
) strict;
create index runs_by_dispatch on runs (dispatch_id);

create table events (
    stream text not null,
    seq integer not null,
    type text not null,
    data blob not null,
    at integer not null,
    primary key (stream, seq)
) strict, without rowid;

create table outbox (
    id text primary key,
    session_id text not null,
    position integer not null,
    dispatch_id text not null,
    call_id text not null,
    part integer not null,
    channel text not null,
    destination blob not null,
    body blob not null,
    idempotency_key text not null unique,
    status text not null check (
        status = 'pending' or status = 'sending' or status = 'sent' or status = 'undeliverable'
    ),
    attempts integer not null default 0,
    available_at integer not null,
    created_at integer not null,
    lease_owner text,                         -- who is sending it
    lease_token integer not null default 0,
    ambiguous integer not null default 0,     -- 1: an earlier attempt may have reached the platform
    receipt text not null default '',
    error text not null default '',
    unique (session_id, position)
) strict;
create unique index outbox_one_sending on outbox (session_id) where status = 'sending';
create index outbox_unsent on outbox (session_id, position) where status in ('pending', 'sending');
create index outbox_due on outbox (available_at, id) where status in ('pending', 'sending');
create index outbox_by_dispatch on outbox (dispatch_id);
create index outbox_by_status on outbox (status, session_id, position);

create table steps (
    scope text not null,
    name text not null,
    result blob not null,
    primary key (scope, name)
) strict;

create table workers (
    id text primary key,
    host text not null,
    pid integer not null,
    status text not null check (status = 'live' or status = 'draining' or status = 'dead'),
    agents text not null,                     -- JSON array of names
    liveness_key integer not null,
    started_at integer not null,
    heartbeat_at integer not null,
    expires_at integer not null
) strict;

create table schedules (
    name text primary key,
    agent text not null,
    instance_id text not null,
    session text not null,
    cron text not null,
    input blob not null,
    enabled integer not null default 1,
    next_at integer,
    last_at integer
) strict;
create index schedules_due on schedules (next_at) where enabled = 1 and next_at is not null;
