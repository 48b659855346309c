-- name: outbox_claim
-- Take the session's lowest unsent reply if it is due and nobody alive is sending it; 'sending' is committed before the
-- platform is called. Taking over from a dead worker, or after an answer nobody read, leaves it marked ambiguous.
update outbox
   set ambiguous = case when status = 'sending' then 1 else ambiguous end,
       status = 'sending',
       attempts = attempts + 1,
       lease_owner = :worker,
       lease_token = lease_token + 1
 where id = (select id from outbox
              where session_id = :session and status in ('pending', 'sending')
              order by position
              limit 1)
   and ((status = 'pending' and available_at <= :now)
        or (status = 'sending'
            and not exists (select 1 from workers w where w.id = outbox.lease_owner and w.status <> 'dead')))
   and exists (select 1 from workers w where w.id = :worker and w.status <> 'dead')
returning id, session_id, position, dispatch_id, call_id, part, channel, destination, body, idempotency_key, status,
          attempts, available_at, created_at, lease_token, ambiguous, receipt, error;

-- name: outbox_claim_due
-- Name sessions whose lowest unsent reply is due and not being sent by anybody alive, longest due first. Takes nothing:
-- each is then claimed by outbox_claim.
select o.session_id
  from outbox o indexed by outbox_due
 where o.available_at <= :now
   and (o.status = 'pending'
        or (o.status = 'sending'
            and not exists (select 1 from workers w where w.id = o.lease_owner and w.status <> 'dead')))
   and o.status in ('pending', 'sending')
   and not exists (select 1 from outbox earlier
                    where earlier.session_id = o.session_id and earlier.position < o.position
                      and earlier.status in ('pending', 'sending'))
   and exists (select 1 from workers w where w.id = :worker and w.status <> 'dead')
 order by o.available_at, o.id
 limit :limit;

-- name: outbox_sent
-- The platform has it. No row: another worker took the reply over.
update outbox
   set status = 'sent', receipt = :receipt, error = '', lease_owner = null
 where id = :id and status = 'sending' and lease_token = :token
returning dispatch_id;

-- name: outbox_retry
-- Put it back until an instant. No row: another worker took the reply over.
update outbox
   set status = 'pending', available_at = :available, ambiguous = :ambiguous, error = :reason, lease_owner = null
 where id = :id and status = 'sending' and lease_token = :token
returning dispatch_id;

-- name: outbox_undeliverable
-- Give up on it, which frees the next. No row: another worker took the reply over.
update outbox
   set status = 'undeliverable', error = :reason, lease_owner = null
 where id = :id and status = 'sending' and lease_token = :token
returning dispatch_id;
