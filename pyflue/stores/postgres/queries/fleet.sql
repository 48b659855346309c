-- name: fleet_register
-- Add this process as live; under an id used before, what that one held is freed. Locks the worker's row, and those
-- sessions in id order.
with held as materialized (
    select id from sessions where lease_owner = %(worker)s order by id for update
),
freed as (
    update sessions s
       set lease_owner = null,
           lease_token = s.lease_token + 1,
           due_at = coalesce(s.due_at, %(now)s::timestamptz, now())
     where s.id = any (array(select id from held))
)
insert into workers (id, host, pid, status, agents, started_at, heartbeat_at, expires_at, liveness_key)
values (%(worker)s, %(host)s, %(pid)s::bigint, 'live', %(agents)s::text[], coalesce(%(now)s::timestamptz, now()),
        coalesce(%(now)s::timestamptz, now()), coalesce(%(now)s::timestamptz, now()) + %(lease)s::interval,
        %(key)s::bigint)
    on conflict (id) do update
   set host = excluded.host, pid = excluded.pid, status = 'live', agents = excluded.agents,
       started_at = excluded.started_at, heartbeat_at = excluded.heartbeat_at, expires_at = excluded.expires_at,
       liveness_key = excluded.liveness_key
returning id

-- name: fleet_register.lock
-- Take the liveness lock of this process, on a connection of its own: it is free again the moment the process dies.
select pg_try_advisory_lock(%(key)s::bigint)

-- name: fleet_register.keepalive
-- Have the server notice within seconds that the host behind the liveness lock is gone. Over a Unix socket: no effect.
select set_config('tcp_keepalives_idle', '3', false), set_config('tcp_keepalives_interval', '2', false),
       set_config('tcp_keepalives_count', '3', false)

-- name: fleet_heartbeat
-- Prove this worker alive and read which of its dispatches are to be aborted. Locks its worker row. No row: it is dead.
with beat as (
    update workers
       set heartbeat_at = coalesce(%(now)s::timestamptz, now()),
           expires_at = coalesce(%(now)s::timestamptz, now()) + %(lease)s::interval
     where id = %(worker)s and status <> 'dead'
    returning liveness_key
)
select beat.liveness_key,
       array(select d.id
               from sessions s
               join dispatches d on d.session_id = s.id
              where s.lease_owner = %(worker)s
                and d.status in ('queued', 'running', 'waiting')
                and d.abort_requested_at is not null)
  from beat

-- name: fleet_drain
-- Mark a live worker draining: it claims no more. Locks its row.
update workers set status = 'draining' where id = %(worker)s and status = 'live' returning id

-- name: fleet_retire
-- Mark a worker dead and free what it holds, at once. Locks its sessions in id order, as admissions do, and its row.
with gone as (
    update workers set status = 'dead' where id = %(worker)s
),
held as materialized (
    select id from sessions where lease_owner = %(worker)s order by id for update
)
update sessions s
   set lease_owner = null,
       lease_token = s.lease_token + 1,
       due_at = coalesce(s.due_at, %(now)s::timestamptz, now())
 where s.id = any (array(select id from held))
returning s.id

-- name: fleet_reap
-- Mark dead whoever is: its lease ran out, or its liveness lock is free and its heartbeat old. The lock is only tried
-- where the times allow it (the case keeps that order), and is held to the end of this statement alone.
-- Rows of workers long dead are dropped. Skips locked rows: a worker that is just beating is not dead.
with dropped as (
    delete from workers
     where status = 'dead' and heartbeat_at < coalesce(%(now)s::timestamptz, now()) - interval '2 days'
),
dead as materialized (
    select id
      from workers
     where case
               when status = 'dead' then false
               when expires_at < coalesce(%(now)s::timestamptz, now()) then true
               when heartbeat_at + %(grace)s::interval < coalesce(%(now)s::timestamptz, now())
                   then pg_try_advisory_xact_lock(liveness_key)
               else false
           end
       for update skip locked
)
update workers w set status = 'dead' from dead where w.id = dead.id
returning w.id

-- name: fleet_free
-- Free sessions whose owner is dead or unknown, skipping locked rows. The owners are listed first, so that a session
-- just claimed by a worker too new for this snapshot is not taken for an orphan.
with owners as materialized (
    select lease_owner as id from sessions where lease_owner is not null
    except
    select id from workers where status <> 'dead'
),
orphans as materialized (
    select s.id
      from sessions s
      join owners o on o.id = s.lease_owner
     limit %(limit)s::bigint
       for update of s skip locked
)
update sessions s
   set lease_owner = null,
       lease_token = s.lease_token + 1,
       due_at = coalesce(s.due_at, %(now)s::timestamptz, now())
 where s.id = any (array(select id from orphans))
returning s.id

-- name: fleet_disown
-- Free the sessions and the items this worker holds beyond those it names. Locks those sessions in id order, then those
-- items, whose next taker is told that an earlier attempt may have reached the platform.
with held as materialized (
    select id from sessions
     where lease_owner = %(worker)s and id <> all (%(sessions)s::text[])
     order by id
       for update
),
strays as (
    update sessions s
       set lease_owner = null,
           lease_token = s.lease_token + 1,
           due_at = coalesce(s.due_at, %(now)s::timestamptz, now())
     where s.id = any (array(select id from held))
    returning s.id
),
items as (
    update outbox
       set lease_owner = null
     where status = 'sending'
       and lease_owner = %(worker)s
       and id <> all (%(items)s::text[])
)
select id from strays

-- name: fleet_unclaimable
-- Take due sessions whose agent nobody has offered for a while. Skips locked rows.
with stuck as materialized (
    select s.id
      from sessions s
     where s.lease_owner is null
       and s.due_at <= coalesce(%(now)s::timestamptz, now()) - %(after)s::interval
       and s.agent <> all (array(select unnest(w.agents) from workers w
                                  where w.heartbeat_at > coalesce(%(now)s::timestamptz, now()) - %(after)s::interval))
       and exists (select 1 from workers w where w.id = %(worker)s and w.status = 'live')
     order by s.due_at, s.id
     limit %(limit)s::bigint
       for update of s skip locked
)
update sessions s
   set lease_owner = %(worker)s,
       lease_token = s.lease_token + 1
 where s.id = any (array(select id from stuck))
returning s.id, s.agent, s.instance_id, s.name, s.lease_token, s.head, s.summary_seq
