-- Forget contexts whose effects are done: DUE -> ABSENT. Idempotent.
--
-- ARGV: context, its first number (as in settle), ... Returns how many contexts this call finished.
local now, finished = now_ms(), 0
for i = 1, #ARGV, 2 do
  if finish(ARGV[i], ARGV[i + 1], now) then finished = finished + 1 end
end
prune_tombstones(now)
return finished
