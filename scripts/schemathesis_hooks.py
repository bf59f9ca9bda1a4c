"""What schemathesis makes up may be somebody's: no notification leaves for a real host."""

import re
from urllib.parse import urlsplit

import schemathesis

# A name that may resolve; no address, and not the name of this machine.
NAME = re.compile(r"^(?!localhost\.?$)(?=.*[a-z])[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?$")


@schemathesis.hook
def before_call(context, case, kwargs):
    body = case.body
    uri = body.get("callbackReference") if isinstance(body, dict) else None
    if not isinstance(uri, str):
        return
    try:
        parts = urlsplit(uri)
        host = parts.hostname or ""
    except ValueError:
        return
    if NAME.match(host):
        there = re.sub(re.escape(host), "consumer.invalid", parts.netloc, flags=re.I)
        body["callbackReference"] = uri.replace(parts.netloc, there, 1)
