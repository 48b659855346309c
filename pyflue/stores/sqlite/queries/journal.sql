-- name: journal_append.fence
-- The fence, the numbering and the lock of every turn's write. No row: the token or the head is another, or the lease
-- was given back.
update sessions
   set head = head + :entries,
       summary_seq = coalesce(:summary_seq, summary_seq),
       updated_at = :now
 where id = :session and lease_token = :token and lease_owner is not null and head = :head
returning head, outbox_head;

-- name: journal_append.owner
-- Check that the dispatch is in this session's mailbox, and read its status.
select status from dispatches where id = :dispatch and session_id = :session;

-- name: journal_append.entry
-- Add one line to the journal, under a number the fence gave.
insert into entries (session_id, seq, dispatch_id, kind, token, body, created_at)
values (:session, :seq, :dispatch, :kind, :token, :body, :now);

-- name: journal_append.progress
-- The attempt got somewhere: count tries from here.
update dispatches set attempts = 0 where id = :dispatch;

-- name: journal_append.event_seq
-- Reserve numbers in the dispatch's stream; the row's counter makes commit order number order. Returns the last.
update dispatches set event_seq = event_seq + :events where id = :dispatch returning event_seq;

-- name: journal_append.event
-- Add one event, under a number from the counter.
insert into events (stream, seq, type, data, at) values (:stream, :seq, :type, :data, :now);

-- name: journal_append.reply
-- Add one reply; one whose idempotency key is there already is left out (no row).
insert into outbox (id, session_id, position, dispatch_id, call_id, part, channel, destination, body,
                    idempotency_key, status, available_at, created_at)
values (:id, :session, :position, :dispatch, :call, :part, :channel, :destination, :body,
        :idempotency_key, 'pending', :now, :now)
on conflict (idempotency_key) do nothing
returning id;

-- name: journal_append.outbox_head
-- Remember the position of the last reply.
update sessions set outbox_head = :outbox_head where id = :session;

-- name: journal_load
-- Read lines above a number, in order. A negative limit means all of them.
select seq, dispatch_id, kind, body, created_at, token
  from entries
 where session_id = :session and seq > :after
 order by seq
 limit :limit;

-- name: journal_head
-- Read the journal's last number, the token, and whether somebody holds the session, as committed now.
select head, lease_token, lease_owner is not null from sessions where id = :session;

-- name: steps_get
-- Read a step's recorded result.
select result from steps where scope = :scope and name = :name;

-- name: steps_put
-- Record a step's result; the first one stays.
insert into steps (scope, name, result) values (:scope, :name, :result) on conflict (scope, name) do nothing;

-- name: events_read
-- Read events above a number, in order.
select stream, seq, type, data, at
  from events
 where stream = :stream and seq > :after
 order by seq
 limit :limit;
