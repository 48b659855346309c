-- name: outbox_claim
-- Take the session's lowest unsent item if it is due, or if whoever was sending it is gone. Waits for that item's row.
with lowest as materialized (
    select id, status
      from outbox
     where session_id = %(session)s and status in ('pending', 'sending')
     order by position
     limit 1
       for update
)
update outbox o
   set status = 'sending',
       attempts = o.attempts + 1,
       ambiguous = o.ambiguous or l.status = 'sending',
       lease_owner = %(worker)s,
       lease_token = o.lease_token + 1
  from lowest l
 where o.id = l.id
   and exists (select 1 from workers w where w.id = %(worker)s and w.status <> 'dead')
   and case l.status
           when 'pending' then o.available_at <= coalesce(%(now)s::timestamptz, now())
           else not exists (select 1 from workers w where w.id = o.lease_owner and w.status <> 'dead')
       end
returning o.id, o.session_id, o.position, o.dispatch_id, o.call_id, o.part, o.channel, o.destination, o.body,
          o.idempotency_key, o.status, o.attempts, o.available_at, o.created_at, o.lease_token, o.ambiguous, o.receipt,
          o.error

-- name: outbox_claim_due
-- Take items of any sessions that are due, or whose sender is gone; skips locked rows. An item is only taken if nothing
-- older of its session is unsent: what this snapshot calls final stays final, so it may be trusted. The look for
-- something older is a sub-query with a limit, which can only be done session by session: as a join it would compare
-- every unsent item with every other under a plan made while they were few.
with waiting as materialized (
    select o.id, o.available_at
      from outbox o
     where o.status = 'pending'
       and o.available_at <= coalesce(%(now)s::timestamptz, now())
       and o.id = (select p.id from outbox p
                    where p.session_id = o.session_id and p.status in ('pending', 'sending')
                    order by p.position
                    limit 1)
     order by o.available_at, o.id
     limit %(limit)s::bigint
       for update of o skip locked
),
stranded as materialized (
    select o.id, o.available_at
      from outbox o
     where o.status = 'sending'
       and not exists (select 1 from workers w where w.id = o.lease_owner and w.status <> 'dead')
     order by o.available_at, o.id
     limit %(limit)s::bigint
       for update of o skip locked
),
due as materialized (
    select * from waiting union all select * from stranded order by available_at, id limit %(limit)s::bigint
)
update outbox o
   set status = 'sending',
       attempts = o.attempts + 1,
       ambiguous = o.ambiguous or o.status = 'sending',
       lease_owner = %(worker)s,
       lease_token = o.lease_token + 1
 where o.id = any (array(select id from due))
   and exists (select 1 from workers w where w.id = %(worker)s and w.status <> 'dead')
returning o.id, o.session_id, o.position, o.dispatch_id, o.call_id, o.part, o.channel, o.destination, o.body,
          o.idempotency_key, o.status, o.attempts, o.available_at, o.created_at, o.lease_token, o.ambiguous, o.receipt,
          o.error

-- name: outbox_sent
-- Mark an item sent, tell it in the dispatch's stream, and take the session's next item. Locks the item, its dispatch,
-- then the next item. No row: somebody else has the item.
with done as (
    update outbox
       set status = 'sent', receipt = %(receipt)s, error = '', lease_owner = null
     where id = %(id)s and status = 'sending' and lease_token = %(token)s::bigint
    returning session_id, position, dispatch_id
),
counted as (
    update dispatches d set event_seq = d.event_seq + 1 from done where d.id = done.dispatch_id
    returning d.id, d.event_seq
),
told as (
    insert into events (stream, seq, type, data, at)
    select c.id, c.event_seq, %(type)s, %(event)s::bytea, coalesce(%(now)s::timestamptz, now()) from counted c
),
following as materialized (
    select o.id
      from done
      join lateral (
            select id, available_at from outbox
             where session_id = done.session_id and position > done.position and status in ('pending', 'sending')
             order by position
             limit 1) o on o.available_at <= coalesce(%(now)s::timestamptz, now())
     where exists (select 1 from workers w where w.id = %(worker)s and w.status <> 'dead')
),
next as (
    update outbox o
       set status = 'sending', attempts = o.attempts + 1, lease_owner = %(worker)s, lease_token = o.lease_token + 1
      from following
     where o.id = following.id and o.status = 'pending'
    returning o.id, o.session_id, o.position, o.dispatch_id, o.call_id, o.part, o.channel, o.destination, o.body,
              o.idempotency_key, o.status, o.attempts, o.available_at, o.created_at, o.lease_token, o.ambiguous,
              o.receipt, o.error
)
select next.* from done left join next on true

-- name: outbox_retry
-- Put an item back to wait, and tell it in the dispatch's stream. Locks the item, then its dispatch.
with done as (
    update outbox
       set status = 'pending', available_at = coalesce(%(now)s::timestamptz, now()) + %(delay)s::interval,
           ambiguous = %(ambiguous)s::boolean, error = %(reason)s, lease_owner = null
     where id = %(id)s and status = 'sending' and lease_token = %(token)s::bigint
    returning dispatch_id
),
counted as (
    update dispatches d set event_seq = d.event_seq + 1 from done where d.id = done.dispatch_id
    returning d.id, d.event_seq
),
told as (
    insert into events (stream, seq, type, data, at)
    select c.id, c.event_seq, %(type)s, %(event)s::bytea, coalesce(%(now)s::timestamptz, now()) from counted c
)
select dispatch_id from done

-- name: outbox_undeliverable
-- Give up on an item, tell it in the dispatch's stream, and take the session's next item, as outbox_sent does.
with done as (
    update outbox
       set status = 'undeliverable', error = %(reason)s, lease_owner = null
     where id = %(id)s and status = 'sending' and lease_token = %(token)s::bigint
    returning session_id, position, dispatch_id
),
counted as (
    update dispatches d set event_seq = d.event_seq + 1 from done where d.id = done.dispatch_id
    returning d.id, d.event_seq
),
told as (
    insert into events (stream, seq, type, data, at)
    select c.id, c.event_seq, %(type)s, %(event)s::bytea, coalesce(%(now)s::timestamptz, now()) from counted c
),
following as materialized (
    select o.id
      from done
      join lateral (
            select id, available_at from outbox
             where session_id = done.session_id and position > done.position and status in ('pending', 'sending')
             order by position
             limit 1) o on o.available_at <= coalesce(%(now)s::timestamptz, now())
     where exists (select 1 from workers w where w.id = %(worker)s and w.status <> 'dead')
),
next as (
    update outbox o
       set status = 'sending', attempts = o.attempts + 1, lease_owner = %(worker)s, lease_token = o.lease_token + 1
      from following
     where o.id = following.id and o.status = 'pending'
    returning o.id, o.session_id, o.position, o.dispatch_id, o.call_id, o.part, o.channel, o.destination, o.body,
              o.idempotency_key, o.status, o.attempts, o.available_at, o.created_at, o.lease_token, o.ambiguous,
              o.receipt, o.error
)
select next.* from done left join next on true
