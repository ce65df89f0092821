#!/usr/bin/env bash
# Known vulnerabilities of what is installed beside videogn, by the service that pip-audit asks; needs a network that reaches it.
# Without it pip-audit may report success and have checked nothing, so it is asked first for one that is known to be there.
set -euo pipefail
python -m pip install --quiet pip-audit
asked=$(mktemp)
trap 'rm -f "$asked"' EXIT
echo "jinja2==2.4.1" >"$asked"
found=$(python -m pip_audit --no-deps --disable-pip --requirement "$asked" --format json 2>/dev/null || true)
if ! grep -qE '"(PYSEC|GHSA|CVE)-' <<<"$found"; then
    echo "the service was not reached: it does not know the vulnerabilities of jinja2 2.4.1" >&2
    exit 1
fi
python -m pip_audit --strict --skip-editable
