#!/bin/sh
# bundle.sh DIR - what a machine with a card may lack to build this project, into DIR/include and DIR/lib:
# headers and libraries (static ones where the system has them). `make gpu-bundle` packs DIR with the
# sources; there, `make DEPS_DIR=deps` builds with them. Debian names of the packages are in the Makefile.
set -eu
DIR=$1
CC=${CC:-gcc}
rm -rf "$DIR"
mkdir -p "$DIR/include" "$DIR/lib"
for h in yaml jansson zstd zlib pcre2 utf8proc xxhash cmocka; do
    case $h in
    pcre2) text='#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>' ;;
    cmocka) text='#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>' ;;
    *) text="#include <$h.h>" ;;
    esac
    echo "$text" | $CC -M -xc - | tr ' \\' '\n\n' | grep -E "/(yaml|jansson|jansson_config|zstd|zstd_errors|zlib|zconf|pcre2|utf8proc|xxhash|xxh3|cmocka)\.h$" |
        while read -r f; do cp "$f" "$DIR/include/"; done
done
for l in yaml jansson zstd z pcre2-8 utf8proc xxhash cmocka; do
    f=$($CC -print-file-name=lib$l.a)
    if [ -e "$f" ]; then
        cp "$f" "$DIR/lib/"
    else # the name that the program will ask for at run time, and the one the linker wants
        f=$(readlink -f "$($CC -print-file-name=lib$l.so)")
        soname=$(readelf -d "$f" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')
        cp "$f" "$DIR/lib/$soname"
        cp "$f" "$DIR/lib/lib$l.so"
    fi
done
echo "$DIR: $(ls "$DIR/lib" | wc -l) libraries, $(du -sk "$DIR" | cut -f 1) KiB"
