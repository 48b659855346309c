-- name: views_dispatch
-- Read one dispatch. Locks nothing.
select id, session_id, position, input, status, attempts, accepted_at, available_at, started_at, deadline_at,
       expires_at, abort_requested_at, settled_at, result, error, event_seq, replay_of, traceparent
  from dispatches
 where id = %(dispatch)s

-- name: views_dispatches
-- Read a page of dispatches, newest first. Locks nothing. Each filter that has an index has a statement of its own,
-- because statements are planned once, for any parameters.
select d.id, d.session_id, d.position, d.input, d.status, d.attempts, d.accepted_at, d.available_at, d.started_at,
       d.deadline_at, d.expires_at, d.abort_requested_at, d.settled_at, d.result, d.error, d.event_seq, d.replay_of,
       d.traceparent
  from dispatches d
 where (%(before)s::text is null or d.id < %(before)s)
   and (%(agent)s::text is null
        or exists (select 1 from sessions s where s.id = d.session_id and s.agent = %(agent)s))
 order by d.id desc
 limit %(limit)s::bigint

-- name: views_dispatches.of_session
-- As views_dispatches, for one session, whose dispatches are few.
select d.id, d.session_id, d.position, d.input, d.status, d.attempts, d.accepted_at, d.available_at, d.started_at,
       d.deadline_at, d.expires_at, d.abort_requested_at, d.settled_at, d.result, d.error, d.event_seq, d.replay_of,
       d.traceparent
  from dispatches d
 where d.session_id = %(session)s
   and (%(status)s::text is null or d.status = %(status)s)
   and (%(before)s::text is null or d.id < %(before)s)
   and (%(agent)s::text is null
        or exists (select 1 from sessions s where s.id = d.session_id and s.agent = %(agent)s))
 order by d.id desc
 limit %(limit)s::bigint

-- name: views_dispatches.of_status
-- As views_dispatches, for one status.
select d.id, d.session_id, d.position, d.input, d.status, d.attempts, d.accepted_at, d.available_at, d.started_at,
       d.deadline_at, d.expires_at, d.abort_requested_at, d.settled_at, d.result, d.error, d.event_seq, d.replay_of,
       d.traceparent
  from dispatches d
 where d.status = %(status)s
   and d.id < coalesce(%(before)s, '~')
   and (%(agent)s::text is null
        or exists (select 1 from sessions s where s.id = d.session_id and s.agent = %(agent)s))
 order by d.id desc
 limit %(limit)s::bigint

-- name: views_session
-- Read one session. Locks nothing.
select id, agent, instance_id, name, head, mailbox_head, unsettled, created_at, updated_at, due_at, lease_owner,
       lease_token
  from sessions
 where id = %(session)s

-- name: views_sessions
-- Read a page of sessions by id. Locks nothing.
select id, agent, instance_id, name, head, mailbox_head, unsettled, created_at, updated_at, due_at, lease_owner,
       lease_token
  from sessions
 where (%(agent)s::text is null or agent = %(agent)s)
   and (%(after)s::text is null or id > %(after)s)
 order by id
 limit %(limit)s::bigint

-- name: views_outbox
-- Read outbox items in session and position order. Locks nothing.
select id, session_id, position, dispatch_id, call_id, part, channel, destination, body, idempotency_key, status,
       attempts, available_at, created_at, lease_token, ambiguous, receipt, error
  from outbox
 where (%(status)s::text is null or status = %(status)s)
 order by session_id, position
 limit %(limit)s::bigint

-- name: views_outbox.of_dispatch
-- As views_outbox, for one dispatch.
select id, session_id, position, dispatch_id, call_id, part, channel, destination, body, idempotency_key, status,
       attempts, available_at, created_at, lease_token, ambiguous, receipt, error
  from outbox
 where dispatch_id = %(dispatch)s
   and (%(session)s::text is null or session_id = %(session)s)
   and (%(status)s::text is null or status = %(status)s)
 order by session_id, position
 limit %(limit)s::bigint

-- name: views_outbox.of_session
-- As views_outbox, for one session.
select id, session_id, position, dispatch_id, call_id, part, channel, destination, body, idempotency_key, status,
       attempts, available_at, created_at, lease_token, ambiguous, receipt, error
  from outbox
 where session_id = %(session)s
   and (%(status)s::text is null or status = %(status)s)
 order by position
 limit %(limit)s::bigint

-- name: views_outbox.unsent
-- As views_outbox, for a status that is not final; such items are few.
select id, session_id, position, dispatch_id, call_id, part, channel, destination, body, idempotency_key, status,
       attempts, available_at, created_at, lease_token, ambiguous, receipt, error
  from outbox
 where status in ('pending', 'sending')
   and status = %(status)s
 order by session_id, position
 limit %(limit)s::bigint

-- name: views_outbox_item
-- Read one outbox item. Locks nothing.
select id, session_id, position, dispatch_id, call_id, part, channel, destination, body, idempotency_key, status,
       attempts, available_at, created_at, lease_token, ambiguous, receipt, error
  from outbox
 where id = %(id)s

-- name: views_workers
-- Read the workers seen within a day, live ones first, with the number of sessions each holds. Locks nothing.
select w.id, w.host, w.pid, w.status, w.agents, w.started_at, w.heartbeat_at, w.expires_at, w.liveness_key,
       (select count(*) from sessions s where s.lease_owner = w.id)
  from workers w
 where w.status <> 'dead' or w.heartbeat_at >= coalesce(%(now)s::timestamptz, now()) - interval '1 day'
 order by array_position(array['live', 'draining', 'dead'], w.status), w.id

-- name: views_totals
-- Count what there is: by status, due sessions, and the age in seconds of the oldest due one. Locks nothing. What is not
-- final is always counted; of a table of more than 200,000 rows the final ones are estimated from the planner's
-- statistics, since counting them would take longer the older the deployment gets.
with sizes as materialized (
    select relname, reltuples, reltuples > 200000 as large
      from pg_class
     where oid in ('dispatches'::regclass, 'outbox'::regclass)
)
select 'dispatch', status, count(*), 0.0::float8
  from dispatches where status in ('queued', 'running', 'waiting') group by status
union all
select 'dispatch', status, count(*), 0.0::float8
  from dispatches
 where status in ('completed', 'failed', 'aborted') and not (select large from sizes where relname = 'dispatches')
 group by status
union all
select 'outbox', status, count(*), 0.0::float8
  from outbox where status in ('pending', 'sending') group by status
union all
select 'outbox', status, count(*), 0.0::float8
  from outbox
 where status in ('sent', 'undeliverable') and not (select large from sizes where relname = 'outbox')
 group by status
union all
select case z.relname when 'dispatches' then 'dispatch' else 'outbox' end, v.status,
       round(v.share * z.reltuples)::bigint, 0.0::float8
  from sizes z
  join pg_stats p on p.schemaname = current_schema() and p.tablename = z.relname and p.attname = 'status'
 cross join unnest(p.most_common_vals::text::text[], p.most_common_freqs) as v (status, share)
 where z.large and v.status in ('completed', 'failed', 'aborted', 'sent', 'undeliverable')
union all
select 'worker', status, count(*), 0.0::float8 from workers group by status
union all
select 'due', '', count(*),
       coalesce(extract(epoch from coalesce(%(now)s::timestamptz, now()) - min(due_at)), 0)::float8
  from sessions
 where lease_owner is null and due_at <= coalesce(%(now)s::timestamptz, now())
