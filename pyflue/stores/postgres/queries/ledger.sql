-- name: ledger_claim
-- Take a mailbox that is due and that nobody holds; the token grows by one and fences every later write.
-- Waits for the session row (an admission may hold it for a moment). Read the mailbox in a later statement: this one's
-- snapshot may be older than what it waited for.
update sessions s
   set lease_owner = %(worker)s,
       lease_token = s.lease_token + 1
 where s.id = %(session)s
   and s.lease_owner is null
   and s.due_at <= coalesce(%(now)s::timestamptz, now())
   and s.agent = any (%(agents)s::text[])
   and exists (select 1 from workers w where w.id = %(worker)s and w.status = 'live')
returning s.id, s.agent, s.instance_id, s.name, s.lease_token, s.head, s.summary_seq

-- name: ledger_claim_due
-- Take due mailboxes nobody holds, oldest first, leaving rows that are locked to whoever has them. They are updated by
-- an array of their ids, because a join would read the whole table under a plan that does not know how few there are.
with due as materialized (
    select s.id
      from sessions s
     where s.lease_owner is null
       and s.due_at <= coalesce(%(now)s::timestamptz, now())
       and s.agent = any (%(agents)s::text[])
       and exists (select 1 from workers w where w.id = %(worker)s and w.status = 'live')
     order by s.due_at, s.id
     limit %(limit)s::bigint
       for update of s skip locked
)
update sessions s
   set lease_owner = %(worker)s,
       lease_token = s.lease_token + 1
 where s.id = any (array(select id from due))
returning s.id, s.agent, s.instance_id, s.name, s.lease_token, s.head, s.summary_seq, s.due_at

-- name: ledger_mailbox
-- Read a held mailbox: its counter and its lowest unsettled dispatch, in one snapshot. No row: the lease is lost.
select s.mailbox_head, s.unsettled, coalesce(%(now)s::timestamptz, now()),
       d.id, d.session_id, d.position, d.input, d.status, d.attempts, d.accepted_at, d.available_at, d.started_at,
       d.deadline_at, d.expires_at, d.abort_requested_at, d.settled_at, d.result, d.error, d.event_seq, d.replay_of,
       d.traceparent
  from sessions s
  left join lateral (
        select * from dispatches
         where session_id = s.id and status in ('queued', 'running', 'waiting')
         order by position
         limit 1) d on true
 where s.id = %(session)s
   and s.lease_token = %(token)s::bigint
   and s.lease_owner is not null

-- name: ledger_begin
-- Start an attempt, with the entries and events that say so. Locks the session, then the dispatch. The session update is
-- the fence; that the dispatch is unsettled may be read from the snapshot, since only a holder of the token settles.
with fence as (
    update sessions s
       set head = s.head + %(count)s::bigint,
           summary_seq = case when %(summary)s::bigint > 0 then s.head + %(summary)s::bigint else s.summary_seq end,
           outbox_head = s.outbox_head + %(replies)s::bigint,
           updated_at = coalesce(%(now)s::timestamptz, now())
     where s.id = %(session)s
       and s.lease_token = %(token)s::bigint
       and s.lease_owner is not null
       and s.head = %(head)s::bigint
       and exists (select 1 from dispatches
                    where id = %(dispatch)s and session_id = %(session)s
                      and status in ('queued', 'running', 'waiting'))
    returning s.outbox_head
),
started as (
    update dispatches d
       set status = 'running',
           attempts = d.attempts + 1,
           started_at = coalesce(d.started_at, %(now)s::timestamptz, now()),
           deadline_at = coalesce(d.deadline_at, coalesce(%(now)s::timestamptz, now()) + %(budget)s::interval),
           event_seq = d.event_seq + %(event_count)s::bigint
      from fence
     where d.id = %(dispatch)s
    returning d.id, d.session_id, d.position, d.input, d.status, d.attempts, d.accepted_at, d.available_at,
              d.started_at, d.deadline_at, d.expires_at, d.abort_requested_at, d.settled_at, d.result, d.error,
              d.event_seq, d.replay_of, d.traceparent
),
lines as (
    insert into entries (session_id, seq, dispatch_id, kind, token, body, created_at)
    select %(session)s, %(head)s::bigint + e.n, %(dispatch)s, e.kind, %(token)s::bigint, e.body,
           coalesce(%(now)s::timestamptz, now())
      from fence, unnest(%(kinds)s::text[], %(bodies)s::bytea[]) with ordinality as e (kind, body, n)
),
replies as (
    insert into outbox (id, session_id, position, dispatch_id, call_id, part, channel, destination, body,
                        idempotency_key, status, available_at, created_at)
    select o.id, %(session)s, f.outbox_head - %(replies)s::bigint + o.n, %(dispatch)s, o.call_id, o.part, o.channel,
           o.destination, o.body, o.key, 'pending', coalesce(%(now)s::timestamptz, now()),
           coalesce(%(now)s::timestamptz, now())
      from fence f,
           unnest(%(reply_ids)s::text[], %(call_ids)s::text[], %(parts)s::bigint[], %(channels)s::text[],
                  %(destinations)s::bytea[], %(texts)s::bytea[], %(reply_keys)s::text[])
           with ordinality as o (id, call_id, part, channel, destination, body, key, n)
        on conflict (idempotency_key) do nothing
),
told as (
    insert into events (stream, seq, type, data, at)
    select %(dispatch)s, d.event_seq - %(event_count)s::bigint + v.n, v.type, v.data,
           coalesce(%(now)s::timestamptz, now())
      from started d, unnest(%(types)s::text[], %(events)s::bytea[]) with ordinality as v (type, data, n)
)
select * from started

-- name: ledger_park
-- Put the dispatch back to wait for its time; the lease stays. Locks the session, then the dispatch; fenced as begin is.
with fence as (
    update sessions s
       set head = s.head + %(count)s::bigint,
           summary_seq = case when %(summary)s::bigint > 0 then s.head + %(summary)s::bigint else s.summary_seq end,
           outbox_head = s.outbox_head + %(replies)s::bigint,
           updated_at = coalesce(%(now)s::timestamptz, now())
     where s.id = %(session)s
       and s.lease_token = %(token)s::bigint
       and s.lease_owner is not null
       and s.head = %(head)s::bigint
       and exists (select 1 from dispatches
                    where id = %(dispatch)s and session_id = %(session)s
                      and status in ('queued', 'running', 'waiting'))
    returning s.outbox_head
),
parked as (
    update dispatches d
       set status = 'queued',
           attempts = case when %(refund)s::boolean and d.status = 'running' then greatest(d.attempts - 1, 0)
                           else d.attempts
                      end,
           available_at = coalesce(%(now)s::timestamptz, now()) + %(delay)s::interval,
           event_seq = d.event_seq + %(event_count)s::bigint
      from fence
     where d.id = %(dispatch)s
    returning d.event_seq
),
lines as (
    insert into entries (session_id, seq, dispatch_id, kind, token, body, created_at)
    select %(session)s, %(head)s::bigint + e.n, %(dispatch)s, e.kind, %(token)s::bigint, e.body,
           coalesce(%(now)s::timestamptz, now())
      from fence, unnest(%(kinds)s::text[], %(bodies)s::bytea[]) with ordinality as e (kind, body, n)
),
replies as (
    insert into outbox (id, session_id, position, dispatch_id, call_id, part, channel, destination, body,
                        idempotency_key, status, available_at, created_at)
    select o.id, %(session)s, f.outbox_head - %(replies)s::bigint + o.n, %(dispatch)s, o.call_id, o.part, o.channel,
           o.destination, o.body, o.key, 'pending', coalesce(%(now)s::timestamptz, now()),
           coalesce(%(now)s::timestamptz, now())
      from fence f,
           unnest(%(reply_ids)s::text[], %(call_ids)s::text[], %(parts)s::bigint[], %(channels)s::text[],
                  %(destinations)s::bytea[], %(texts)s::bytea[], %(reply_keys)s::text[])
           with ordinality as o (id, call_id, part, channel, destination, body, key, n)
        on conflict (idempotency_key) do nothing
),
told as (
    insert into events (stream, seq, type, data, at)
    select %(dispatch)s, d.event_seq - %(event_count)s::bigint + v.n, v.type, v.data,
           coalesce(%(now)s::timestamptz, now())
      from parked d, unnest(%(types)s::text[], %(events)s::bytea[]) with ordinality as v (type, data, n)
)
select event_seq from parked

-- name: ledger_settle
-- End the dispatch with its last entries, replies and events, and give the lease back if nothing else is there.
-- Locks the session, then the dispatch. The first reply is taken for delivery only if nothing older is unsent.
-- A settlement whose answer was lost may still be under way when it is repeated, and without entries the head does not
-- tell the two apart: if the dispatch was settled while this one waited, it divides by zero and so undoes itself.
with fence as (
    update sessions s
       set head = s.head + %(count)s::bigint,
           summary_seq = case when %(summary)s::bigint > 0 then s.head + %(summary)s::bigint else s.summary_seq end,
           outbox_head = s.outbox_head + %(replies)s::bigint,
           unsettled = s.unsettled - 1,
           lease_owner = case when s.mailbox_head = %(seen)s::bigint and s.unsettled = 1 then null
                              else s.lease_owner end,
           due_at = case when s.mailbox_head = %(seen)s::bigint and s.unsettled = 1 then null else s.due_at end,
           updated_at = coalesce(%(now)s::timestamptz, now())
     where s.id = %(session)s
       and s.lease_token = %(token)s::bigint
       and s.lease_owner is not null
       and s.head = %(head)s::bigint
       and exists (select 1 from dispatches
                    where id = %(dispatch)s and session_id = %(session)s
                      and status in ('queued', 'running', 'waiting'))
    returning s.head, s.outbox_head, s.lease_owner is null as released
),
settled as (
    update dispatches d
       set status = %(outcome)s,
           settled_at = coalesce(%(now)s::timestamptz, now()),
           result = %(result)s::bytea,
           error = %(error)s::bytea,
           event_seq = d.event_seq + %(event_count)s::bigint
      from fence
     where d.id = %(dispatch)s
       and d.status in ('queued', 'running', 'waiting')
    returning d.event_seq
),
lines as (
    insert into entries (session_id, seq, dispatch_id, kind, token, body, created_at)
    select %(session)s, %(head)s::bigint + e.n, %(dispatch)s, e.kind, %(token)s::bigint, e.body,
           coalesce(%(now)s::timestamptz, now())
      from fence, unnest(%(kinds)s::text[], %(bodies)s::bytea[]) with ordinality as e (kind, body, n)
),
replies as (
    insert into outbox (id, session_id, position, dispatch_id, call_id, part, channel, destination, body,
                        idempotency_key, status, attempts, lease_owner, lease_token, available_at, created_at)
    select o.id, %(session)s, f.outbox_head - %(replies)s::bigint + o.n, %(dispatch)s, o.call_id, o.part, o.channel,
           o.destination, o.body, o.key,
           case when keep.first and o.n = 1 then 'sending' else 'pending' end,
           case when keep.first and o.n = 1 then 1 else 0 end,
           case when keep.first and o.n = 1 then %(worker)s end,
           case when keep.first and o.n = 1 then 1 else 0 end,
           coalesce(%(now)s::timestamptz, now()), coalesce(%(now)s::timestamptz, now())
      from fence f,
           (select %(keep)s::boolean
                   and not exists (select 1 from outbox
                                    where session_id = %(session)s and status in ('pending', 'sending')) as first) keep,
           unnest(%(reply_ids)s::text[], %(call_ids)s::text[], %(parts)s::bigint[], %(channels)s::text[],
                  %(destinations)s::bytea[], %(texts)s::bytea[], %(reply_keys)s::text[])
           with ordinality as o (id, call_id, part, channel, destination, body, key, n)
        on conflict (idempotency_key) do nothing
    returning status
),
told as (
    insert into events (stream, seq, type, data, at)
    select %(dispatch)s, d.event_seq - %(event_count)s::bigint + v.n, v.type, v.data,
           coalesce(%(now)s::timestamptz, now())
      from settled d, unnest(%(types)s::text[], %(events)s::bytea[]) with ordinality as v (type, data, n)
)
select f.head / (select count(*) from settled),  -- by 1, or by 0 if it was settled meanwhile: undo, and look again
       f.outbox_head, f.released, coalesce(%(now)s::timestamptz, now()),
       exists (select 1 from replies r where r.status = 'sending')
  from fence f

-- name: ledger_release
-- Give the lease back, if the mailbox counter is still what the holder read. Whatever changes the mailbox moves the
-- counter under this row's lock, so the snapshot's head is the right one whenever the condition holds.
update sessions s
   set lease_owner = null,
       due_at = (select case when status = 'waiting' then null else available_at end
                   from dispatches
                  where session_id = %(session)s and status in ('queued', 'running', 'waiting')
                  order by position
                  limit 1),
       updated_at = coalesce(%(now)s::timestamptz, now())
 where s.id = %(session)s
   and s.lease_token = %(token)s::bigint
   and s.lease_owner is not null
   and s.mailbox_head = %(seen)s::bigint
returning 1

-- name: ledger_request_abort
-- Ask for an abort and make the session due. Locks the session, then the dispatch; a dispatch that settles meanwhile
-- stays as it is, and its session is then looked at once for nothing. No row: unknown, or settled.
with box as (
    update sessions s
       set mailbox_head = s.mailbox_head + 1,
           due_at = coalesce(%(now)s::timestamptz, now()),
           updated_at = coalesce(%(now)s::timestamptz, now())
      from dispatches t
     where t.id = %(dispatch)s
       and t.status in ('queued', 'running', 'waiting')
       and s.id = t.session_id
    returning s.id
),
held as (
    select d.id, d.abort_requested_at is null as first
      from dispatches d, box
     where d.id = %(dispatch)s
       and d.session_id = box.id
       and d.status in ('queued', 'running', 'waiting')
       for no key update of d
),
marked as (
    update dispatches d
       set event_seq = d.event_seq + h.first::int,
           abort_requested_at = coalesce(d.abort_requested_at, %(now)s::timestamptz, now()),
           available_at = case when d.status = 'queued' then coalesce(%(now)s::timestamptz, now())
                               else d.available_at end
      from held h
     where d.id = h.id
    returning d.*, h.first
),
told as (
    insert into events (stream, seq, type, data, at)
    select m.id, m.event_seq, 'dispatch.abort_requested', %(event)s::bytea, coalesce(%(now)s::timestamptz, now())
      from marked m
     where m.first
)
select id, session_id, position, input, status, attempts, accepted_at, available_at, started_at, deadline_at,
       expires_at, abort_requested_at, settled_at, result, error, event_seq, replay_of, traceparent
  from marked
