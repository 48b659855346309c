-- name: ledger_admit
-- Admit a batch in one statement: keys first, in key order; then session rows in id order; then dispatches and events.
-- An event with a key this snapshot knows is a duplicate and touches nothing. Each later part reads what the part
-- before it returned, because parts that do not depend on one another run in any order.
-- If another transaction has taken some of an event's keys but not all, the statement divides by zero and so undoes
-- itself: run again, its snapshot sees the other's keys. Locks: keys, then sessions. Receipts of duplicates must be
-- read by a later statement.
-- Tables are joined by lateral look-ups with a limit, which can only be done key by key: a plan made while a table is
-- small would otherwise read all of it, and go on doing so as it grows.
with moment as materialized (select coalesce(%(now)s::timestamptz, now()) as now),
req as materialized (
    select *
      from unnest(%(ids)s::text[], %(sessions)s::text[], %(agents)s::text[], %(instances)s::text[], %(names)s::text[],
                  %(inputs)s::bytea[], %(hashes)s::bytea[], %(lifetimes)s::bigint[], %(replays)s::text[],
                  %(traces)s::text[], %(key_counts)s::bigint[], %(events)s::bytea[])
           with ordinality as r (id, session_id, agent, instance_id, name, input, body_hash, lifetime, replay_of,
                                 traceparent, key_count, event, ord)
),
keys as materialized (
    select * from unnest(%(key_ords)s::bigint[], %(sources)s::text[], %(keys)s::text[]) as k (ord, source, key)
),
known as materialized (
    select distinct k.ord
      from keys k
     cross join lateral (select 1 from admissions a where a.source = k.source and a.key = k.key limit 1) a
),
fresh as materialized (
    select r.*,
           coalesce(s.unsettled, 0) + row_number() over (partition by r.session_id order by r.ord) as place
      from req r
      left join lateral (select unsettled from sessions where id = r.session_id limit 1) s on true
     where r.ord not in (select ord from known)
),
fitting as materialized (
    select f.*, %(backlog)s::bigint + row_number() over (order by f.ord) as total
      from fresh f
     where f.place <= %(per_session)s::bigint
),
chosen as materialized (
    select * from fitting where total <= %(per_deployment)s::bigint
),
taken as (
    insert into admissions (source, key, dispatch_id, body_hash, admitted_at)
    select k.source, k.key, c.id, nullif(c.body_hash, ''::bytea), t.now
      from keys k join chosen c on c.ord = k.ord, moment t
     order by k.source, k.key
        on conflict do nothing
    returning dispatch_id
),
counted as materialized (
    select dispatch_id, count(*) as taken from taken group by dispatch_id
),
mine as materialized (
    select c.*, row_number() over (partition by c.session_id order by c.ord desc) - 1 as behind
      from chosen c
      left join counted n on n.dispatch_id = c.id
     where case coalesce(n.taken, 0)
               when c.key_count then true
               when 0 then false
               else 1 / (c.key_count - c.key_count) = 0  -- partly known: undo everything and look again
           end
),
boxes as (
    insert into sessions as s (id, agent, instance_id, name, mailbox_head, unsettled, due_at, created_at, updated_at)
    select m.session_id, min(m.agent), min(m.instance_id), min(m.name), count(*), count(*),
           t.now, t.now, t.now
      from mine m, moment t
     group by m.session_id, t.now
     order by m.session_id collate "C"  -- as all who lock several sessions
        on conflict (id) do update
       set mailbox_head = s.mailbox_head + excluded.mailbox_head,
           unsettled = s.unsettled + excluded.unsettled,
           due_at = coalesce(s.due_at, excluded.due_at),
           updated_at = excluded.updated_at
    returning s.id, s.mailbox_head
),
queued as (
    insert into dispatches (id, session_id, position, input, status, accepted_at, available_at, expires_at, replay_of,
                            event_seq, traceparent)
    select m.id, m.session_id, b.mailbox_head - m.behind, m.input, 'queued', t.now, t.now,
           case when m.lifetime >= 0 then t.now + m.lifetime * interval '1 microsecond' end,
           nullif(m.replay_of, ''), 1, m.traceparent
      from mine m join boxes b on b.id = m.session_id, moment t
    returning id, accepted_at
),
told as (
    insert into events (stream, seq, type, data, at)
    select q.id, 1, 'dispatch.accepted', m.event, q.accepted_at from queued q join mine m on m.id = q.id
)
select q.accepted_at,
       case when q.id is not null then 'admitted'
            when f.ord is null then 'duplicate'
            when t.ord is null then 'session_full'
            when c.ord is null then 'deployment_full'
            else 'duplicate'
       end
  from req r
  left join fresh f on f.ord = r.ord
  left join fitting t on t.ord = r.ord
  left join chosen c on c.ord = r.ord
  left join queued q on q.id = r.id
 order by r.ord

-- name: ledger_admit.receipts
-- Read who first used each of these keys; no row for a key nobody has. Never in the statement that lost the race.
select k.ord, a.dispatch_id, a.admitted_at, a.body_hash
  from unnest(%(key_ords)s::bigint[], %(sources)s::text[], %(keys)s::text[]) with ordinality as k (ord, source, key, n)
 cross join lateral (select dispatch_id, admitted_at, body_hash
                       from admissions
                      where source = k.source and key = k.key
                      limit 1) a
 order by k.n

-- name: ledger_admit.backlog
-- Count unsettled dispatches, but no further than the limit. Locks nothing.
select count(*)
  from (select 1 from dispatches
         where status in ('queued', 'running', 'waiting')
         limit %(per_deployment)s::bigint) as counted
