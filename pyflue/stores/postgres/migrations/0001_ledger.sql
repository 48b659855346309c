-- The ledger, the journal, the outbox and the fleet.
--
-- There are no foreign keys: each write is one statement that names its rows by key, and a key-share lock on the
-- session row for every child row would make an admission wait for a running turn. Bodies are bytea, never jsonb, so
-- that \u0000 and the order of keys survive. Ids compare bytewise (collate "C").

create table sessions (
    id text collate "C" primary key,
    agent text not null,
    instance_id text not null,
    name text not null,
    head bigint not null default 0,
    summary_seq bigint not null default 0,
    mailbox_head bigint not null default 0,
    unsettled bigint not null default 0,
    outbox_head bigint not null default 0,
    due_at timestamptz,
    lease_owner text collate "C",
    lease_token bigint not null default 0,
    created_at timestamptz not null,
    updated_at timestamptz not null
) with (fillfactor = 80);

create index sessions_due on sessions (due_at) where lease_owner is null and due_at is not null;
create index sessions_owned on sessions (lease_owner) where lease_owner is not null;
create index sessions_by_agent on sessions (agent, id);

create table entries (
    session_id text collate "C" not null,
    seq bigint not null,
    dispatch_id text collate "C" not null,
    kind text not null,
    token bigint not null,
    body bytea not null,
    created_at timestamptz not null,
    primary key (session_id, seq)
);

create table admissions (
    source text collate "C" not null,
    key text collate "C" not null,
    dispatch_id text collate "C" not null,
    body_hash bytea,
    admitted_at timestamptz not null,
    primary key (source, key)
);

create index admissions_by_age on admissions (admitted_at);

create table dispatches (
    id text collate "C" primary key,
    session_id text collate "C" not null,
    position bigint not null,
    input bytea not null,
    status text not null default 'queued'
        check (status in ('queued', 'running', 'waiting', 'completed', 'failed', 'aborted')),
    attempts bigint not null default 0,
    accepted_at timestamptz not null,
    available_at timestamptz not null,
    started_at timestamptz,
    deadline_at timestamptz,
    expires_at timestamptz,
    abort_requested_at timestamptz,
    settled_at timestamptz,
    joined_into text collate "C",
    answered_by text collate "C",
    replay_of text collate "C",
    event_seq bigint not null default 0,
    result bytea,
    error bytea,
    traceparent text not null default '',
    unique (session_id, position)
) with (fillfactor = 80);

create index dispatches_unsettled on dispatches (session_id, position)
    where status in ('queued', 'running', 'waiting');
create unique index dispatches_one_at_work on dispatches (session_id) where status in ('running', 'waiting');
create index dispatches_by_status on dispatches (status, id);

create table runs (
    id text collate "C" primary key,
    workflow text not null,
    dispatch_id text collate "C",
    input bytea not null,
    status text not null default 'queued',
    event_seq bigint not null default 0,
    accepted_at timestamptz not null,
    settled_at timestamptz,
    result bytea,
    error bytea
);

create table events (
    stream text collate "C" not null,
    seq bigint not null,
    type text not null,
    data bytea not null,
    at timestamptz not null,
    primary key (stream, seq)
);

create table outbox (
    id text collate "C" primary key,
    session_id text collate "C" not null,
    position bigint not null,
    dispatch_id text collate "C" not null,
    call_id text not null,
    part bigint not null,
    channel text not null,
    destination bytea not null,
    body bytea not null,
    idempotency_key text collate "C" not null unique,
    status text not null check (status in ('pending', 'sending', 'sent', 'undeliverable')),
    attempts bigint not null default 0,
    available_at timestamptz not null,
    created_at timestamptz not null,
    ambiguous boolean not null default false,
    lease_owner text collate "C",
    lease_token bigint not null default 0,
    receipt text not null default '',
    error text not null default '',
    unique (session_id, position)
) with (fillfactor = 80);

create index outbox_unsent on outbox (session_id, position) where status in ('pending', 'sending');
create unique index outbox_one_sending on outbox (session_id) where status = 'sending';
create index outbox_due on outbox (available_at) where status = 'pending';
create index outbox_by_dispatch on outbox (dispatch_id);

create table steps (
    scope text collate "C" not null,
    name text collate "C" not null,
    result bytea not null,
    created_at timestamptz not null,
    primary key (scope, name)
);

create table workers (
    id text collate "C" primary key,
    host text not null,
    pid bigint not null,
    status text not null check (status in ('live', 'draining', 'dead')),
    agents text[] not null,
    started_at timestamptz not null,
    heartbeat_at timestamptz not null,
    expires_at timestamptz not null,
    liveness_key bigint not null
) with (fillfactor = 50);

create table schedules (
    name text collate "C" primary key,
    agent text not null,
    spec text not null,
    input bytea not null,
    due_at timestamptz,
    updated_at timestamptz not null
);
