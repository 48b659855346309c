-- name: store_ready.create
-- Make the table that remembers migrations.
create table if not exists schema_migrations (
    number integer primary key,
    name text not null,
    checksum text not null,
    applied_at integer not null
) strict;

-- name: store_ready.applied
-- Read which migrations were applied.
select number, name, checksum from schema_migrations order by number;

-- name: store_ready.known
-- Tell whether the table that remembers migrations is there.
select 1 from sqlite_master where type = 'table' and name = 'schema_migrations';

-- name: store_ready.record
-- Remember a migration, in the transaction that applied it.
insert into schema_migrations (number, name, checksum, applied_at) values (:number, :name, :checksum, :now);

-- name: store_ready
-- Answer, which shows that the file can be read.
select count(*) from schema_migrations;
