-- name: views_dispatch
-- Read one dispatch. Locks nothing.
select id, session_id, position, input, status, attempts, accepted_at, available_at, started_at, deadline_at,
       expires_at, abort_requested_at, settled_at, result, error, event_seq, replay_of, traceparent
  from dispatches
 where id = %(dispatch)s

-- name: views_dispatches
-- Read a page of dispatches, newest first. Locks nothing.
select d.id, d.session_id, d.position, d.input, d.status, d.attempts, d.accepted_at, d.available_at, d.started_at,
       d.deadline_at, d.expires_at, d.abort_requested_at, d.settled_at, d.result, d.error, d.event_seq, d.replay_of,
       d.traceparent
  from dispatches d
 where (%(status)s::text is null or d.status = %(status)s)
   and (%(session)s::text is null or d.session_id = %(session)s)
   and (%(before)s::text is null or d.id < %(before)s)
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
 where (%(session)s::text is null or session_id = %(session)s)
   and (%(dispatch)s::text is null or dispatch_id = %(dispatch)s)
   and (%(status)s::text is null or status = %(status)s)
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
-- Count what there is: counts by status, due sessions, and the age in seconds of the oldest due one. Locks nothing.
select 'dispatch', status, count(*), 0.0::float8 from dispatches group by status
union all
select 'outbox', status, count(*), 0.0::float8 from outbox group by status
union all
select 'worker', status, count(*), 0.0::float8 from workers group by status
union all
select 'due', '', count(*),
       coalesce(extract(epoch from coalesce(%(now)s::timestamptz, now()) - min(due_at)), 0)::float8
  from sessions
 where lease_owner is null and due_at <= coalesce(%(now)s::timestamptz, now())
