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
  for _, entry in ipairs(redis.call('XRANGE', LOG, ARGV[i], ARGV[i])) do
    local number, _, _, _, _, reason = message(entry)
    if reason ~= 'newer' then
      redis.call('XADD', QUARANTINE, 'MAXLEN', '~', 1000, '*', 'number', number, 'reason', ARGV[i + 1],
        unpack(entry[2]))
      redis.call('XDEL', LOG, entry[1])
      moved = moved + 1
    end
  end
end
if moved > 0 then
  redis.call('HINCRBY', META, 'set_aside', moved)
  redis.call('PEXPIRE', QUARANTINE, 7 * 86400 * 1000)
end
return { 0, moved }
