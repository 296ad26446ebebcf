#!/bin/sh
# resources.sh LOG LIBRARY - reads what `make RESOURCES=1` printed: registers, shared and local memory of every
# kernel and architecture as a table; a kernel that spills registers fails. The library may offer one symbol.
set -u
LOG=$1 LIBRARY=$2
awk '
    /Compiling entry function/ { match($0, /\047[^\047]*\047 for \047[^\047]*/); s = substr($0, RSTART + 1, RLENGTH - 1)
        split(s, part, "\047 for \047"); name = part[1]; arch = part[2]
        sub(/^_Z[A-Za-z0-9_]*_cu_[0-9a-f_]*E?/, "", name); sub(/^_ZN?[0-9]*_?[A-Z]*_*[0-9]+/, "", name)
        if (match(name, /[a-z][a-z_0-9]*_kernel/)) name = substr(name, RSTART, RLENGTH) }
    /bytes spill stores/ { spill[name, arch] = $0 !~ / 0 bytes spill stores, 0 bytes spill loads/ }
    /Used [0-9]+ registers/ { match($0, /Used [0-9]+/); r = substr($0, RSTART + 5, RLENGTH - 5)
        m = match($0, /[0-9]+ bytes smem/) ? substr($0, RSTART, RLENGTH - 11) : 0
        if (!(name in seen)) { seen[name] = 1; order[++n] = name }
        if (!(arch in archs)) { archs[arch] = 1; a[++k] = arch }
        regs[name, arch] = r; smem[name] = m }
    END {
        printf "%-34s", "kernel: registers"; for (j = 1; j <= k; j++) printf "%8s", a[j]; printf "%10s\n", "shared"
        for (i = 1; i <= n; i++) { printf "%-34s", order[i]
            for (j = 1; j <= k; j++) { printf "%8s", regs[order[i], a[j]] (spill[order[i], a[j]] ? "!" : ""); bad += spill[order[i], a[j]] }
            printf "%10s\n", smem[order[i]] }
        print (bad || !n ? "not ok" : "ok") " no kernel spills: " n " kernels, " k " architectures, " bad + 0 " spilling"
        exit bad || !n }' "$LOG"
rc=$?
symbols=$(nm -D --defined-only "$LIBRARY" | awk '{ print $NF }' | tr '\n' ' ')
[ "$symbols" = "rlhf_cuda_backend " ] && { echo "ok one symbol"; one=0; } || { echo "not ok one symbol: $symbols"; one=1; }
echo "$((2 - (rc != 0) - one)) passed, $(((rc != 0) + one)) failed, 0 skipped"
[ "$rc" = 0 ] && [ "$one" = 0 ]
