-- name: views_dispatch
-- Read one dispatch.
select id, session_id, position, input, status, attempts, accepted_at, available_at, started_at, deadline_at,
       expires_at, abort_requested_at, settled_at, result, error, event_seq, replay_of, traceparent
  from dispatches
 where id = :dispatch;

-- name: views_dispatches
-- Read a page of dispatches, newest first; a filter that is null does not filter.
select d.id, d.session_id, d.position, d.input, d.status, d.attempts, d.accepted_at, d.available_at, d.started_at,
       d.deadline_at, d.expires_at, d.abort_requested_at, d.settled_at, d.result, d.error, d.event_seq, d.replay_of,
       d.traceparent
  from dispatches d
 where (:before is null or d.id < :before)
   and (:agent is null or exists (select 1 from sessions s where s.id = d.session_id and s.agent = :agent))
 order by d.id desc
 limit :limit;

-- name: views_dispatches.of_session
-- The same for one session, from its own index.
select d.id, d.session_id, d.position, d.input, d.status, d.attempts, d.accepted_at, d.available_at, d.started_at,
       d.deadline_at, d.expires_at, d.abort_requested_at, d.settled_at, d.result, d.error, d.event_seq, d.replay_of,
       d.traceparent
  from dispatches d
 where d.session_id = :session
   and (:status is null or d.status = :status)
   and (:before is null or d.id < :before)
   and (:agent is null or exists (select 1 from sessions s where s.id = d.session_id and s.agent = :agent))
 order by d.id desc
 limit :limit;

-- name: views_dispatches.of_status
-- The same for one status, from its own index.
select d.id, d.session_id, d.position, d.input, d.status, d.attempts, d.accepted_at, d.available_at, d.started_at,
       d.deadline_at, d.expires_at, d.abort_requested_at, d.settled_at, d.result, d.error, d.event_seq, d.replay_of,
       d.traceparent
  from dispatches d
 where d.status = :status
   and (:before is null or d.id < :before)
   and (:agent is null or exists (select 1 from sessions s where s.id = d.session_id and s.agent = :agent))
 order by d.id desc
 limit :limit;

-- name: views_session
-- Read one session.
select id, agent, instance_id, name, head, mailbox_head, unsettled, created_at, updated_at, due_at, lease_owner,
       lease_token
  from sessions
 where id = :session;

-- name: views_sessions
-- Read a page of sessions by id; a filter that is null does not filter.
select id, agent, instance_id, name, head, mailbox_head, unsettled, created_at, updated_at, due_at, lease_owner,
       lease_token
  from sessions
 where (:after is null or id > :after)
 order by id
 limit :limit;

-- name: views_sessions.of_agent
-- The same for one agent, from its own index.
select id, agent, instance_id, name, head, mailbox_head, unsettled, created_at, updated_at, due_at, lease_owner,
       lease_token
  from sessions
 where agent = :agent
   and (:after is null or id > :after)
 order by id
 limit :limit;

-- name: views_outbox
-- Read outbox items in session and position order.
select id, session_id, position, dispatch_id, call_id, part, channel, destination, body, idempotency_key, status,
       attempts, available_at, created_at, lease_token, ambiguous, receipt, error
  from outbox
 order by session_id, position
 limit :limit;

-- name: views_outbox.of_status
-- The same for one status, from its own index.
select id, session_id, position, dispatch_id, call_id, part, channel, destination, body, idempotency_key, status,
       attempts, available_at, created_at, lease_token, ambiguous, receipt, error
  from outbox
 where status = :status
 order by session_id, position
 limit :limit;

-- name: views_outbox.of_dispatch
-- The same for one dispatch, from its own index.
select id, session_id, position, dispatch_id, call_id, part, channel, destination, body, idempotency_key, status,
       attempts, available_at, created_at, lease_token, ambiguous, receipt, error
  from outbox
 where dispatch_id = :dispatch
   and (:session is null or session_id = :session)
   and (:status is null or status = :status)
 order by session_id, position
 limit :limit;

-- name: views_outbox.of_session
-- The same for one session, from its own index.
select id, session_id, position, dispatch_id, call_id, part, channel, destination, body, idempotency_key, status,
       attempts, available_at, created_at, lease_token, ambiguous, receipt, error
  from outbox
 where session_id = :session
   and (:status is null or status = :status)
 order by position
 limit :limit;

-- name: views_outbox_item
-- Read one outbox item.
select id, session_id, position, dispatch_id, call_id, part, channel, destination, body, idempotency_key, status,
       attempts, available_at, created_at, lease_token, ambiguous, receipt, error
  from outbox
 where id = :id;

-- name: views_workers
-- Read workers seen lately, live ones first, with how many sessions each holds.
select w.id, w.host, w.pid, w.status, w.agents, w.started_at, w.heartbeat_at, w.expires_at, w.liveness_key,
       (select count(*) from sessions s where s.lease_owner = w.id)
  from workers w
 where w.status <> 'dead' or w.heartbeat_at >= :since
 order by case w.status when 'live' then 0 when 'draining' then 1 else 2 end, w.id;

-- name: views_totals
-- Count dispatches, replies and workers by status, from indexes only.
select 'dispatches', status, count(*) from dispatches group by status
union all
select 'outbox', status, count(*) from outbox group by status
union all
select 'workers', status, count(*) from workers group by status;

-- name: views_totals.due
-- Count sessions that are due and free, and find since when the oldest is.
select count(*), min(due_at) from sessions where lease_owner is null and due_at <= :now;
