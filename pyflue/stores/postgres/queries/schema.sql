-- name: store_ready.schema_create
-- Create the table that remembers which migrations were applied.
create table if not exists schema_migrations (
    number integer primary key,
    name text not null,
    checksum text not null,
    applied_at timestamptz not null default now()
)

-- name: store_ready.schema_lock
-- Wait until nobody else migrates this database. Held until the connection ends.
select pg_advisory_lock(hashtextextended('pyflue.schema_migrations', 0))

-- name: store_ready.schema_exists
-- Tell whether this database was ever migrated.
select to_regclass('schema_migrations') is not null

-- name: store_ready.schema_applied
-- Read which migrations were applied.
select number, name, checksum from schema_migrations order by number

-- name: store_ready.schema_record
-- Remember a migration, in the transaction that applied it.
insert into schema_migrations (number, name, checksum)
values (%(number)s::integer, %(migration)s, %(checksum)s)

-- name: store_ready
-- Answer, if the server does.
select 1

-- name: store_ready.configure
-- Have instants of this connection come back in UTC, and statements planned once: planning one anew costs more than
-- running it, and no plan here gets better by knowing its parameters.
select set_config('TimeZone', 'UTC', false), set_config('plan_cache_mode', 'force_generic_plan', false)
