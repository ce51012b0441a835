-- Send dead letters again, each in one step: ABSENT -> PENDING.
--
-- ARGV: deadline after ms, max backlog (0: any), tombstone ms, then of each: id, its last failure (epoch
--       ms; a letter that failed again meanwhile is another), new context, body, frame
-- Returns a word for each: "done"; "gone": there is no such letter; "full": the lane has no room;
--       "known": a context of the new name is there, or ended a short time ago.
-- The step that records the message deletes the letter, so a repeat of the call finds it gone.
local now, timeout, max_backlog = now_ms(), tonumber(ARGV[1]), tonumber(ARGV[2])
local tombstone = tonumber(ARGV[3])
local held = max_backlog > 0 and backlog(now) or 0

local function replay(id, last, context, body, frame)
  local found = letter_of(id)
  if not found or found.last ~= last or found.kind ~= 'm' then return 'gone' end
  if redis.call('HEXISTS', CONTEXTS, context) == 1 or buried(context, now) then return 'known' end
  if max_backlog > 0 and held >= max_backlog then return 'full' end
  held = held + 1
  -- The first write needs memory: a full Redis refuses the whole call, and nothing is half done.
  local first = take_numbers(1)
  redis.call('HSET', CONTEXTS, context,
    version_of(frame) .. string.format(' %.0f 1 %.0f\n', first, tombstone) .. body)
  redis.call('ZADD', DEADLINES, now + timeout, context)
  redis.call('XADD', LOG, string.format('%.0f-0', first), unpack(entry('f', frame)))
  redis.call('HINCRBY', COUNTS, 'replayed', 1)
  forget_letter(id)
  return 'done'
end

local reply = {}
for i = 4, GIVEN, 5 do
  reply[#reply + 1] = replay(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4])
end
return reply
