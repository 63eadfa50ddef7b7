"""How job records lie in Valkey.

    {prefix}:job:{KEY}          version.tag, owner and record, a line each
    {prefix}:open:{ACCOUNT}     keys of the account's unfinished jobs, a sorted set
    {prefix}:session:ID         there while the store that has leased jobs under this id is alive
    {prefix}:secret             the callback secret
    {prefix}:changed            channel; a message is the key of a job that has changed

Each script touches one key, so that all of this works in a cluster. The braces round KEY and
ACCOUNT are part of the name: nothing else in it decides about the place in a cluster.

The tag is another one with each write. It tells a record from an older one of the same version
under the same key, and one's own write, whose answer was lost, from somebody else's.
"""

from __future__ import annotations

import secrets
from typing import NamedTuple

from ..errors import StoreError
from ..protocol.lifecycle import JobRecord
from ..protocol.records import RecordError, decode
from .valkey_client import Script

WRITE = Script("""
local found = redis.call('GET', KEYS[1])
local head, owner = '', ''
if found then head, owner = string.match(found, '^([^\\n]*)\\n([^\\n]*)\\n') end
if head ~= ARGV[1] then return found end
if ARGV[5] ~= '=' then owner = ARGV[5] end
redis.call('SET', KEYS[1], ARGV[2] .. '\\n' .. owner .. '\\n' .. ARGV[3], 'PX', ARGV[4])
if found then redis.call('PUBLISH', ARGV[6], ARGV[7]) end
return 1
""")
"""Write where `head` is as expected (empty: nothing there): expected head, new head, record,
milliseconds to live, owner (`=`: as it is), channel, message. Else what is there, or nil."""

REMOVE = Script("""
local found = redis.call('GET', KEYS[1])
if not found or string.match(found, '^(%d+)%.') ~= ARGV[1] then return false end
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', ARGV[2], ARGV[3])
return found
""")
"""Delete what has this version, and return it: version, channel, message."""

OWN = Script("""
local found = redis.call('GET', KEYS[1])
if not found then return false end
local head, owner, record = string.match(found, '^([^\\n]*)\\n([^\\n]*)(\\n.*)$')
if not head or (owner ~= '' and owner ~= ARGV[1]) then return owner or '' end
if owner ~= ARGV[2] then
  redis.call('SET', KEYS[1], head .. '\\n' .. ARGV[2] .. record, 'KEEPTTL')
end
return 1
""")
"""Give what belongs to nobody, or to this owner, to another: owner, new owner. Else the owner."""

ENLIST = Script("""
redis.call('ZADD', KEYS[1], 'GT', ARGV[2], ARGV[1])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return 1
""")
"""Put a key in the index: key, version at which it is unfinished, milliseconds to live."""

STRIKE = Script("""
local version = redis.call('ZSCORE', KEYS[1], ARGV[1])
if version and tonumber(version) <= tonumber(ARGV[2]) then redis.call('ZREM', KEYS[1], ARGV[1]) end
return 1
""")
"""Take a finished job out of the index, unless it is about to be unfinished again: key, version at
which it is finished."""

MISS = Script("""
local version = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or '')
if not version then return 0 end
local now = tonumber(redis.call('TIME')[1])
if version >= 0 then
  redis.call('ZADD', KEYS[1], -now, ARGV[1])
elseif now + version > 3600 then
  redis.call('ZREM', KEYS[1], ARGV[1])
end
return 1
""")
"""Note that there is no record under a key of the index: key. It may be one that is just being
added, so it goes only when it is missed again an hour later."""

KEEP_OWNER = "="


class Stored(NamedTuple):
    """A record as it was found or written."""

    head: str
    record: JobRecord


def head_of(record: JobRecord) -> str:
    """A new head for a record that is about to be written."""
    return f"{record.version}.{secrets.token_urlsafe(8)}"


def read(value: bytes) -> Stored:
    """What a value holds. Raises `StoreError` for something else than a record."""
    try:
        head, _, text = value.split(b"\n", 2)
        return Stored(head.decode("ascii"), decode(text))
    except RecordError as error:
        raise StoreError(str(error), retryable=False) from None
    except ValueError:
        raise StoreError(
            "what is stored under a job's key is not a job: choose another prefix= for the store",
            retryable=False,
        ) from None


def job(prefix: str, key: str) -> str:
    """Where a record is."""
    return f"{prefix}:job:{{{key}}}"


def key_of(prefix: str, name: str) -> str:
    """The key of the record that is there."""
    return name[len(prefix) + 6 : -1]


def index(prefix: str, account: str) -> str:
    """Where the keys of an account's unfinished jobs are."""
    return f"{prefix}:open:{{{account}}}"


def session(prefix: str, id: str) -> str:
    """What is there while a store is alive."""
    return f"{prefix}:session:{id}"
