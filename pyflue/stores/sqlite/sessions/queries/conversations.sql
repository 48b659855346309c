-- name: conversations_create
-- Make the table on first use. Its name differs from the ledger's, so that both may live in one file.
create table if not exists conversation_entries (
    session text not null,
    seq integer not null,
    entry blob not null,
    primary key (session, seq)
) strict;

-- name: conversations_head
-- Read the number of a session's last entry; 0 if there is none.
select coalesce(max(seq), 0) from conversation_entries where session = :session;

-- name: conversations_append
-- Add one entry.
insert into conversation_entries (session, seq, entry) values (:session, :seq, :entry);

-- name: conversations_load
-- Read entries above a number, in order.
select seq, entry from conversation_entries where session = :session and seq > :after order by seq;

-- name: conversations_delete
-- Remove a session's entries.
delete from conversation_entries where session = :session;
