#!/bin/sh
# Runs `make deps` when a compiler, make or a library is missing.
cd "$(dirname "$0")/.." || exit 1
cc=${CC:-gcc}
for h in yaml.h jansson.h zstd.h zlib.h utf8proc.h xxhash.h cmocka.h; do
    inc="$inc -include $h"
done
echo 'int main(void){return 0;}' | "$cc" -include stdarg.h -include stddef.h -include setjmp.h -include stdint.h \
    $inc -DPCRE2_CODE_UNIT_WIDTH=8 -include pcre2.h -xc - -o /dev/null \
    -lyaml -ljansson -lzstd -lz -lutf8proc -lxxhash -lpcre2-8 -lcmocka 2>/dev/null || make -s deps
