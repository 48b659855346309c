-- name: fleet_register
-- Add the worker as live, as of now.
insert into workers (id, host, pid, status, agents, liveness_key, started_at, heartbeat_at, expires_at)
values (:worker, :host, :pid, 'live', :agents, :liveness_key, :now, :now, :expires)
on conflict (id) do update
   set host = excluded.host, pid = excluded.pid, status = 'live', agents = excluded.agents,
       liveness_key = excluded.liveness_key, started_at = excluded.started_at, heartbeat_at = excluded.heartbeat_at,
       expires_at = excluded.expires_at;

-- name: fleet_register.forget
-- Drop rows of workers long dead that hold nothing any more.
delete from workers
 where status = 'dead' and heartbeat_at < :before
   and not exists (select 1 from sessions where lease_owner = workers.id)
   and not exists (select 1 from outbox where lease_owner = workers.id and status = 'sending');

-- name: fleet_heartbeat
-- Prove the worker alive for another while. No row: it was declared dead, or is unknown.
update workers
   set heartbeat_at = :now, expires_at = :expires
 where id = :worker and status <> 'dead'
returning id;

-- name: fleet_heartbeat.aborts
-- Name the dispatches in the worker's sessions that somebody asked to abort.
select d.id
  from sessions s
  join dispatches d on d.session_id = s.id and d.settled_at is null
 where s.lease_owner = :worker and d.abort_requested_at is not null
 order by d.session_id, d.position;

-- name: fleet_drain
-- The worker claims no more; what it holds it keeps.
update workers set status = 'draining' where id = :worker and status = 'live';

-- name: fleet_retire
-- Mark the worker dead.
update workers set status = 'dead' where id = :worker;

-- name: fleet_retire.free
-- Free what the worker holds; the token grows, so its late writes are refused.
update sessions
   set lease_owner = null,
       lease_token = lease_token + 1,
       due_at = coalesce(due_at, :now)
 where lease_owner = :worker;

-- name: fleet_reap
-- Name workers whose lease ran out (1), and those quiet for longer than the grace time (0), which are dead only if
-- their liveness lock is free.
select id, expires_at < :now
  from workers
 where status <> 'dead' and (expires_at < :now or heartbeat_at < :quiet_since)
 order by id;

-- name: fleet_reap.bury
-- Mark a worker dead, unless it gave a sign of life since it was judged.
update workers
   set status = 'dead'
 where id = :worker and status <> 'dead' and (expires_at < :now or heartbeat_at < :quiet_since)
returning id;

-- name: fleet_free
-- Name sessions held by workers that are dead or unknown. Takes nothing: each is then freed by fleet_free.one.
select id
  from sessions
 where lease_owner is not null
   and not exists (select 1 from workers w where w.id = sessions.lease_owner and w.status <> 'dead')
 limit :limit;

-- name: fleet_free.one
-- Free a session whose owner is dead or unknown; the token grows, so the owner's late writes are refused.
update sessions
   set lease_owner = null,
       lease_token = lease_token + 1,
       due_at = coalesce(due_at, :now)
 where id = :session
   and lease_owner is not null
   and not exists (select 1 from workers w where w.id = sessions.lease_owner and w.status <> 'dead')
returning id;

-- name: fleet_unclaimable
-- Name due sessions whose agent no worker has advertised since an instant, oldest first. Takes nothing.
select id
  from sessions indexed by sessions_due
 where lease_owner is null
   and due_at <= :since
   and agent not in (select names.value from workers w, json_each(w.agents) names where w.heartbeat_at > :since)
   and exists (select 1 from workers where id = :worker and status = 'live')
 order by due_at, id
 limit :limit;

-- name: fleet_unclaimable.take
-- Take such a session although the worker does not have its agent; the token grows by one.
update sessions
   set lease_owner = :worker,
       lease_token = lease_token + 1
 where id = :session and lease_owner is null and due_at <= :since
   and agent not in (select names.value from workers w, json_each(w.agents) names where w.heartbeat_at > :since)
   and exists (select 1 from workers where id = :worker and status = 'live')
returning id, agent, instance_id, name, lease_token, head, summary_seq;

-- name: fleet_disown
-- Name what the worker holds beyond the given sessions and replies. Takes nothing.
select id
  from sessions
 where lease_owner = :worker and id not in (select value from json_each(:sessions))
union all
select id
  from outbox
 where status = 'sending' and lease_owner = :worker and id not in (select value from json_each(:items));

-- name: fleet_disown.sessions
-- Free such sessions; the token grows, so a late write under the lost lease is refused.
update sessions
   set lease_owner = null,
       lease_token = lease_token + 1,
       due_at = coalesce(due_at, :now)
 where lease_owner = :worker and id not in (select value from json_each(:sessions))
returning id;

-- name: fleet_disown.items
-- Leave such replies without an owner; who takes one next looks whether it was sent.
update outbox
   set lease_owner = null
 where status = 'sending' and lease_owner = :worker and id not in (select value from json_each(:items));
