-- What the scripts share that let an owner send; it is put before them.

-- Note in meta that messages up to a number may be sent from now on. Returns field m of that one, if
-- its put marked it; else "".
local function note_sent(last)
  local noted = redis.call('HMGET', META, 'sent', 'tried', 'marked')
  local sent, tried = tonumber(noted[1] or '0'), tonumber(noted[2] or '0')
  if last > sent or last > tried then
    pass_when_full()
    redis.call('HSET', META, 'sent', string.format('%.0f', math.max(last, sent)),
      'tried', string.format('%.0f', math.max(last, tried)))
    if last > sent then redis.call('HDEL', META, 'marked') end
  end
  return last == sent and noted[3] or ''
end
