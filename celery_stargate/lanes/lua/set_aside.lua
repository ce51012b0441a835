-- Move entries of the log that cannot be sent into the quarantine, and count them in meta.
--
-- ARGV: lease, then number and reason of each (as read told it, or the owner)
-- Returns {0, how many were moved}, or {1} if another process has the lease. An entry
--       that waits for a newer process stays. The record of a context whose entry is set
--       aside stays too: its deadline ends it.
if redis.call('GET', LEASE) ~= ARGV[1] then return { 1 } end
pass_when_full()
local moved = 0
for i = 2, #ARGV, 2 do
  local entries = redis.call('XRANGE', LOG, ARGV[i], ARGV[i])
  local parsed, records = parse_all(entries)
  for place, found in ipairs(parsed) do
    if unreadable(found, records[place]) ~= 'newer' then
      redis.call('XADD', QUARANTINE, 'MAXLEN', '~', 1000, '*', 'number', found.number, 'reason',
        ARGV[i + 1], unpack(entries[place][2]))
      redis.call('XDEL', LOG, entries[place][1])
      moved = moved + 1
    end
  end
end
if moved > 0 then
  redis.call('HINCRBY', META, 'set_aside', moved)
  redis.call('PEXPIRE', QUARANTINE, 7 * 86400 * 1000)
end
return { 0, moved }
