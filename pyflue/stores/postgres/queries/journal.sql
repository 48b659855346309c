-- name: journal_append
-- Append entries, events and replies under the fence; progress starts the attempt count again. Locks the session, then
-- the dispatch. No row: the token or the head is another, or the dispatch is not of this session.
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
       and exists (select 1 from dispatches where id = %(dispatch)s and session_id = %(session)s)
    returning s.head, s.outbox_head
),
counted as (
    update dispatches d
       set event_seq = d.event_seq + %(event_count)s::bigint,
           attempts = case when %(progress)s::boolean then 0 else d.attempts end
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
      from counted d, unnest(%(types)s::text[], %(events)s::bytea[]) with ordinality as v (type, data, n)
)
select f.head from fence f

-- name: journal_load
-- Read a stretch of the journal in order. Locks nothing.
select seq, dispatch_id, kind, body, created_at, token
  from entries
 where session_id = %(session)s and seq > %(after)s::bigint
 order by seq
 limit %(limit)s::bigint

-- name: journal_head
-- Read the journal's last number, the token, and whether somebody holds the session. Locks nothing.
select head, lease_token, lease_owner is not null from sessions where id = %(session)s

-- name: steps_get
-- Read a recorded step. Locks nothing.
select result from steps where scope = %(scope)s and name = %(step)s

-- name: steps_put
-- Record a step under the fence; the first result of a name stays. Locks the session. No row: the lease is lost.
-- Returns null when another call recorded the step while this one waited: read it in a later statement.
with fence as (
    select id from sessions
     where id = %(session)s and lease_token = %(token)s::bigint and lease_owner is not null
       for no key update
),
recorded as (
    insert into steps (scope, name, result, created_at)
    select %(scope)s, %(step)s, %(result)s::bytea, coalesce(%(now)s::timestamptz, now()) from fence
        on conflict do nothing
    returning result
)
select coalesce((select result from recorded),
                (select result from steps where scope = %(scope)s and name = %(step)s))
  from fence

-- name: events_read
-- Read a stretch of a stream in order; numbers never skip, because a counter on the dispatch's row gives them.
select stream, seq, type, data, at
  from events
 where stream = %(stream)s and seq > %(after)s::bigint
 order by seq
 limit %(limit)s::bigint
