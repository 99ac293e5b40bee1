#!/usr/bin/env bash
# The browser tests need Chromium. Install Debian's where we may; else say loudly that those tests will be skipped.
set -u
command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    log=$(mktemp)
    echo "installing chromium for the browser tests"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } \
        >"$log" 2>&1 && exit 0
    tail -3 "$log"
fi
echo "*** NO CHROMIUM: the browser tests will be SKIPPED. Install the package 'chromium' to run them. ***"
