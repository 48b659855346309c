-- name: ledger_admit.known
-- Read what a dedupe key led to the first time. No row: it was never seen.
select dispatch_id, body_hash, admitted_at
  from admissions
 where source = :source and key = :key;

-- name: ledger_admit.room
-- Read how much unsettled work the session and the whole deployment hold.
select coalesce((select unsettled from sessions where id = :session), 0), (select unsettled from backlog);

-- name: ledger_admit.session
-- Make the session, or advance its mailbox; returns the new position. Touches neither the lease nor the journal.
insert into sessions as s
    (id, agent, instance_id, name, mailbox_head, unsettled, due_at, created_at, updated_at)
values (:session, :agent, :instance, :name, 1, 1, :now, :now, :now)
on conflict (id) do update
   set mailbox_head = s.mailbox_head + 1,
       unsettled = s.unsettled + 1,
       due_at = coalesce(s.due_at, excluded.due_at),
       updated_at = excluded.updated_at
returning mailbox_head;

-- name: ledger_admit.dispatch
-- Queue the dispatch at its position. Its one event so far is the acceptance.
insert into dispatches
    (id, session_id, position, input, status, accepted_at, available_at, expires_at, event_seq, replay_of, traceparent)
values (:dispatch, :session, :position, :input, 'queued', :now, :now, :expires, 1, :replay_of, :traceparent);

-- name: ledger_admit.key
-- Remember a key, for good; one that an admission names twice counts once.
insert into admissions (source, key, dispatch_id, body_hash, admitted_at)
values (:source, :key, :dispatch, :body_hash, :now)
on conflict (source, key) do nothing;

-- name: ledger_claim
-- Take a mailbox that is due, that nobody holds and whose agent this live worker has. The token grows by one and
-- fences every later write. Read the mailbox in a later statement.
update sessions
   set lease_owner = :worker,
       lease_token = lease_token + 1
 where id = :session
   and lease_owner is null
   and due_at <= :now
   and agent in (select value from json_each(:agents))
   and exists (select 1 from workers where id = :worker and status = 'live')
returning id, agent, instance_id, name, lease_token, head, summary_seq;

-- name: ledger_claim_due
-- Name due mailboxes that nobody holds, oldest first. Takes nothing: each is then claimed by ledger_claim.
-- Walks what is due, never all the sessions of an agent, whatever the planner thinks.
select id
  from sessions indexed by sessions_due
 where lease_owner is null
   and due_at <= :now
   and agent in (select value from json_each(:agents))
   and exists (select 1 from workers where id = :worker and status = 'live')
 order by due_at, id
 limit :limit;

-- name: ledger_mailbox
-- Read the counter and the lowest unsettled dispatch in one snapshot. No row: the lease is lost.
select s.mailbox_head, s.unsettled,
       d.id, d.session_id, d.position, d.input, d.status, d.attempts, d.accepted_at, d.available_at, d.started_at,
       d.deadline_at, d.expires_at, d.abort_requested_at, d.settled_at, d.result, d.error, d.event_seq, d.replay_of,
       d.traceparent
  from sessions s
  left join dispatches d
    on d.session_id = s.id
   and d.position = (select min(position) from dispatches
                      where session_id = s.id and settled_at is null)
 where s.id = :session and s.lease_token = :token and s.lease_owner is not null;

-- name: ledger_begin
-- Start an attempt. First start and deadline are stamped once. No row: it is settled, or another one is at work.
update dispatches
   set status = 'running',
       attempts = attempts + 1,
       started_at = coalesce(started_at, :now),
       deadline_at = coalesce(deadline_at, :deadline)
 where id = :dispatch
   and settled_at is null
   and not exists (select 1 from dispatches other
                    where other.session_id = :session and other.id <> :dispatch
                      and other.status in ('running', 'waiting'))
returning id;

-- name: ledger_park
-- Put the dispatch back until an instant; with refund = 1 the running attempt does not count. No row: it is settled.
update dispatches
   set status = 'queued',
       attempts = case when status = 'running' then max(attempts - :refund, 0) else attempts end,
       available_at = :available
 where id = :dispatch
   and settled_at is null
returning id;

-- name: ledger_settle
-- End the dispatch. No row: it was settled before, and nothing changes it any more.
update dispatches
   set status = :outcome,
       settled_at = :now,
       result = :result,
       error = :error
 where id = :dispatch
   and settled_at is null
returning id;

-- name: ledger_settle.session
-- Count it settled, and give the lease back if nothing came since and nothing else is unsettled. Returns whether.
update sessions
   set unsettled = unsettled - 1,
       lease_owner = case when unsettled = 1 and mailbox_head = :seen then null else lease_owner end,
       due_at = case when unsettled = 1 and mailbox_head = :seen then null else due_at end
 where id = :session
returning unsettled = 0 and mailbox_head = :seen;

-- name: ledger_settle.earlier_reply
-- Find an unsent reply of the session below a position; with none, a reply at that position is the next to leave.
select 1
  from outbox
 where session_id = :session and position <= :outbox_head and status in ('pending', 'sending')
 limit 1;

-- name: ledger_release
-- Give the lease back if nothing came since the mailbox was read. The session is due when its head is: never while
-- the head waits for an approval or there is none. No row: the lease is lost, or something came.
update sessions
   set lease_owner = null,
       due_at = (select case when d.status = 'waiting' then null else d.available_at end
                   from dispatches d
                  where d.session_id = sessions.id and d.settled_at is null
                  order by d.position
                  limit 1)
 where id = :session and lease_token = :token and lease_owner is not null and mailbox_head = :seen
returning id;

-- name: ledger_request_abort
-- Note the wish on an unsettled dispatch; the first one's time is kept, and a parked dispatch is looked at now.
-- Returns its session.
update dispatches
   set abort_requested_at = coalesce(abort_requested_at, :now),
       available_at = case when status = 'queued' then :now else available_at end
 where id = :dispatch
   and settled_at is null
returning session_id;

-- name: ledger_request_abort.first
-- Tell whether nobody has asked yet to abort the dispatch; asked before ledger_request_abort, in its transaction.
select abort_requested_at is null from dispatches where id = :dispatch;

-- name: ledger_request_abort.session
-- Advance the mailbox, so that a release under way notices, and make the session due.
update sessions
   set mailbox_head = mailbox_head + 1,
       due_at = :now
 where id = :session;
