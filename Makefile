# rlhf.c - GNU make 4.3.  make | deps | demo | test | check | check-emu | check-long | bench | install | fmt
#
# Sources are found by wildcard: a folder with a main.c is a program, everything else goes into
# librlhf.a. Each file of common/runtime/cpu is compiled once per instruction set (plain, avx2, avx512,
# avx512bf16); the double build librlhf64.a serves the gradient test alone.

CC       ?= gcc
BUILD    ?= build
PREFIX   ?= /usr/local
OPT      ?= -O2
SAN      ?=
WERROR   ?=
CUDA     ?= auto
DEPS_DIR ?= # headers and libraries from `make gpu-bundle` on a machine that has no packages
V        ?=
Q        := $(if $(V),,@)

comma    := ,
ifneq ($(SAN),)
BUILD    := build/san-$(subst $(comma),-,$(SAN))
CUDA     := 0
SANFLAGS := -fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all
endif

ifneq ($(strip $(DEPS_DIR)),)
DEPS_FLAGS := -I$(strip $(DEPS_DIR))/include
DEPS_LIBS  := -L$(strip $(DEPS_DIR))/lib -Wl,-rpath,$(abspath $(DEPS_DIR))/lib
endif
CFLAGS_ALL := -std=gnu11 $(OPT) -g$(if $(SAN),1) -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
              $(if $(WERROR),-Werror) -ffp-contract=off -fno-math-errno -fno-trapping-math -I. -D_GNU_SOURCE -pthread $(SANFLAGS) $(DEPS_FLAGS) $(CFLAGS)
LIBS       := $(DEPS_LIBS) -lyaml -ljansson -lzstd -lz -lpcre2-8 -lutf8proc -lxxhash -lm -pthread
PACKAGES   := gcc g++ make pkgconf git libyaml-dev libjansson-dev libzstd-dev zlib1g-dev libpcre2-dev libutf8proc-dev libxxhash-dev libcmocka-dev

VERSION    := 0.1.0
GIT_ID     := $(shell git rev-parse --short=9 HEAD 2>/dev/null || echo unknown)

# ---- what is there: decided by compiling and linking, never by asking a package manager
have = $(shell echo 'int main(void){return 0;}' | $(CC) $(DEPS_FLAGS) -include $(1) -xc - $(DEPS_LIBS) $(2) -o /dev/null 2>/dev/null && echo 1)
ifeq ($(filter deps clean fmt help,$(MAKECMDGOALS)),)
HAVE_LIBS := $(and $(call have,yaml.h,-lyaml),$(call have,jansson.h,-ljansson),$(call have,zstd.h,-lzstd),$(call have,zlib.h,-lz),$(call have,utf8proc.h,-lutf8proc),$(call have,xxhash.h,-lxxhash))
ifeq ($(HAVE_LIBS),)
NEED_DEPS := 1
endif
endif

# The CUDA backend is a library of its own, opened by a program on demand. nvcc is found by path; CUDA=1
# makes its absence an error, CUDA=0 does without.
CUDA_HOME  ?= /usr/local/cuda
CUDA_ARCHS ?= 80 90 100
NVCC       ?= $(firstword $(wildcard $(CUDA_HOME)/bin/nvcc) $(shell command -v nvcc))
HAVE_CUDA  := $(if $(filter-out 0,$(CUDA)),$(NVCC))
ifeq ($(CUDA)$(HAVE_CUDA),1)
$(error CUDA=1, but there is no nvcc in $(CUDA_HOME)/bin or on the PATH; set CUDA_HOME)
endif
CUDA_TEXT  := $(if $(HAVE_CUDA),$(shell $(HAVE_CUDA) --version | sed -n 's/.*release \([0-9.]*\).*/\1/p') ($(CUDA_ARCHS:%=sm_%)),no)
# both sides of the seam must come from the same headers
BACKEND_HASH := $(shell cat common/runtime/ops.h common/runtime/tensor.h common/runtime/device_impl.h \
                  common/runtime/backend.h common/base/rng.h | cksum | cut -d' ' -f1)u

# ---- sources
DIRS       := common/base common/runtime common/runtime/comm common/text common/data common/model common/train common/generate \
              rlhf rlhf/sft rlhf/demo reward rejection ppo
MAINS      := $(wildcard $(addsuffix /main.c,$(DIRS)))
LIB_SRC    := $(filter-out $(MAINS),$(wildcard $(addsuffix /*.c,$(DIRS))))
CPU_SRC    := $(wildcard common/runtime/cpu/*.c)
CPU_ISAS   := plain avx2 avx512 avx512bf16
LIB_OBJ    := $(LIB_SRC:%.c=$(BUILD)/%.o) $(foreach isa,$(CPU_ISAS),$(CPU_SRC:%.c=$(BUILD)/%__$(isa).o))
# the double build: what the gradient test needs
SRC64      := $(wildcard common/base/*.c common/runtime/*.c common/model/llama.c common/model/acts.c common/model/heads.c common/model/params.c \
              common/model/kv.c common/data/pack.c)
OBJ64      := $(SRC64:%.c=$(BUILD)/f64/%.o) $(CPU_SRC:%.c=$(BUILD)/f64/%__plain.o)
# rlhf/main.c -> rlhf, rlhf/sft/main.c -> rlhf-sft, reward/main.c -> rlhf-reward
prog        = $(if $(filter rlhf/main.c,$(1)),rlhf,rlhf-$(notdir $(patsubst %/main.c,%,$(1))))
PROGRAMS   := $(foreach m,$(MAINS),$(BUILD)/bin/$(call prog,$(m)))
UNIT_SRC   := $(wildcard tests/unit/test_*.c)
UNIT       := $(UNIT_SRC:tests/unit/%.c=$(BUILD)/tests/%)
OPS_SRC    := $(wildcard tests/ops/*.c)
FUZZ_SRC   := $(wildcard tests/fuzz/fuzz_*.c)
FUZZ       := $(FUZZ_SRC:tests/fuzz/%.c=$(BUILD)/tests/%)
BENCH_SRC  := $(wildcard tests/bench/*.c)
EXACT_SRC  := $(wildcard tests/exact/*.c)
TESTS      := $(UNIT) $(BUILD)/tests/test_exact $(BUILD)/tests/test_grad_model $(if $(OPS_SRC),$(BUILD)/tests/test_ops $(BUILD)/tests/test_grad)

CUDA_SRC   := $(wildcard common/runtime/cuda/*.cu)
CUDA_OBJ   := $(CUDA_SRC:%.cu=$(BUILD)/%.o) $(BUILD)/common/runtime/tensor__pic.o
CUDA_LIB   := $(if $(HAVE_CUDA),$(BUILD)/bin/librlhf_cuda.so)

.PHONY: all programs deps demo demo-controls test check check-emu check-long bench gpu-bundle install fmt clean lint tests emu emu-tests config FORCE
.DEFAULT_GOAL := all

programs: $(if $(NEED_DEPS),deps-message) $(BUILD)/librlhf.a $(PROGRAMS)
all: programs $(CUDA_LIB)
	@echo "rlhf.c $(VERSION) ($(GIT_ID)): $(words $(PROGRAMS)) programs in $(BUILD)/bin; cuda=$(CUDA_TEXT) nccl=no mpi=no"

.PHONY: deps-message
deps-message:
	@echo "make: libraries are missing; run 'make deps' (installs: $(PACKAGES))" >&2; exit 1

tests: $(TESTS) $(FUZZ) $(BUILD)/tests/bench

# ---- flags are a prerequisite: another CC or CFLAGS rebuilds everything in this BUILD
ALLFLAGS = $(CC) $(CFLAGS_ALL)
$(BUILD)/flags: FORCE
	@mkdir -p $(BUILD); echo '$(ALLFLAGS)' | cmp -s - $@ || echo '$(ALLFLAGS)' > $@

compile = @mkdir -p $(@D); $(if $(V),,echo '  CC   $@';) $(if $(V),set -x;) $(CC) $(CFLAGS_ALL) $(1) -MMD -MP -c $< -o $@

$(BUILD)/common/base/version.o: CFLAGS_ALL += -DRLHF_VERSION='"$(VERSION) ($(GIT_ID))"'
$(BUILD)/f64/common/base/version.o: CFLAGS_ALL += -DRLHF_VERSION='"$(VERSION) ($(GIT_ID))"'

$(BUILD)/%.o: %.c $(BUILD)/flags
	$(call compile,)
# reference bodies are vectorised by the compiler alone: no fast-math, so lanes cannot change a bit
CPUFLAGS := -O3 -fno-semantic-interposition
$(BUILD)/%__plain.o: %.c $(BUILD)/flags
	$(call compile,$(CPUFLAGS) -DCPU_ISA=plain)
$(BUILD)/%__avx2.o: %.c $(BUILD)/flags
	$(call compile,$(CPUFLAGS) -DCPU_ISA=avx2 -mavx2 -mfma)
# tuning orders instructions alone; without it gcc's tiles of products take a tenth longer
AVX512FLAGS := -mavx512f -mavx512dq -mavx512bw -mavx512vl -mfma -mprefer-vector-width=512 -mtune=icelake-server
$(BUILD)/%__avx512.o: %.c $(BUILD)/flags
	$(call compile,$(CPUFLAGS) -DCPU_ISA=avx512 $(AVX512FLAGS))
$(BUILD)/%__avx512bf16.o: %.c $(BUILD)/flags
	$(call compile,$(CPUFLAGS) -DCPU_ISA=avx512bf16 $(AVX512FLAGS) -mavx512bf16)
$(BUILD)/f64/%__plain.o: %.c $(BUILD)/flags
	$(call compile,$(CPUFLAGS) -DCPU_ISA=plain -DRLHF_REAL_DOUBLE)
$(BUILD)/f64/%.o: %.c $(BUILD)/flags
	$(call compile,-DRLHF_REAL_DOUBLE)

$(BUILD)/common/runtime/device_cuda.o $(BUILD)/f64/common/runtime/device_cuda.o: CFLAGS_ALL += -DBACKEND_HASH=$(BACKEND_HASH)

# ---- the CUDA backend: no contraction, IEEE division and root, denormals kept
NVFLAGS := -std=c++17 -O3 -fmad=false -prec-div=true -prec-sqrt=true -ftz=false -lineinfo -I. -DBACKEND_HASH=$(BACKEND_HASH) \
           -Xcompiler -fPIC,-fvisibility=hidden,-Wall,-Wextra,-ffp-contract=off$(if $(WERROR),$(comma)-Werror) $(if $(WERROR),-Werror all-warnings) \
           $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$a,code=sm_$a) \
           -gencode arch=compute_$(lastword $(CUDA_ARCHS)),code=compute_$(lastword $(CUDA_ARCHS))
# RESOURCES=1: what each kernel takes of registers and shared memory (tests/gpu/resources.sh reads it)
NVFLAGS += $(if $(RESOURCES),-Xptxas -v)
NVALLFLAGS = $(NVCC) $(NVFLAGS)
$(BUILD)/nvflags: FORCE
	@mkdir -p $(BUILD); echo '$(NVALLFLAGS)' | cmp -s - $@ || echo '$(NVALLFLAGS)' > $@
$(BUILD)/common/runtime/cuda/%.o: common/runtime/cuda/%.cu $(BUILD)/nvflags
	@mkdir -p $(@D); $(if $(V),,echo '  NVCC $@';) $(if $(V),set -x;) $(NVCC) $(NVFLAGS) -MMD -MF $(@:.o=.d) -c $< -o $@
$(BUILD)/%__pic.o: %.c $(BUILD)/flags
	$(call compile,-fPIC -fvisibility=hidden)
$(BUILD)/bin/librlhf_cuda.so: $(CUDA_OBJ)
	@mkdir -p $(@D); $(if $(V),,echo '  LD   $@';) $(NVCC) -shared -cudart static -Xlinker -z,defs,-rpath,$(CUDA_HOME)/lib64 $^ -o $@

# ---- the same kernels for the CPU (tests/emu, one fiber a CUDA thread), with the programs that are to
# find this library beside them. COV=1 counts lines; RACES=1 instruments the kernels alone with the thread
# sanitizer. The scheduler itself is never instrumented.
ifneq ($(and $(findstring default,$(origin CXX)),$(findstring clang,$(CC))),)
CXX := clang++
endif
COV       ?=
RACES     ?=
EMU       := $(BUILD)/emu$(if $(COV),-cov)$(if $(RACES),-races)
EMU_SAN   := $(if $(RACES),thread,$(SAN))
EMU_LD    := -pthread $(if $(EMU_SAN),-fsanitize=$(EMU_SAN)) $(if $(COV),--coverage)
EMU_MFMA  := $(shell grep -qw fma /proc/cpuinfo 2>/dev/null && echo -mfma)
EMU_BASE  := -std=c++17 -O2 -g$(if $(EMU_SAN),1) -Wall -Wextra -Wno-unknown-pragmas $(if $(WERROR),-Werror) -ffp-contract=off -fno-math-errno \
             -fno-trapping-math -fno-strict-aliasing -fPIC -fvisibility=hidden -pthread -D_GNU_SOURCE -DRLHF_EMU -Itests/emu -I. $(EMU_MFMA) \
             -DBACKEND_HASH=$(BACKEND_HASH) $(if $(findstring address,$(EMU_SAN)),-DEMU_ASAN) $(if $(findstring thread,$(EMU_SAN)),-DEMU_TSAN)
EMU_FLAGS := $(EMU_BASE) $(if $(EMU_SAN),-fsanitize=$(EMU_SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all) \
             $(if $(findstring address,$(EMU_SAN)),-fsanitize-sections=emu_shared) $(if $(COV),--coverage)
EMU_DEFS  := $(if $(and $(EMU_SAN),$(findstring clang,$(CXX))),,-Wl$(comma)-z$(comma)defs)
EMU_RT    := $(patsubst %.cpp,$(EMU)/%.o,$(wildcard tests/emu/emu_*.cpp))
EMU_OBJ   := $(CUDA_SRC:%.cu=$(EMU)/%.o) $(EMU_RT) $(BUILD)/common/runtime/tensor__pic.o
EMU_OWN   := $(patsubst tests/emu/%.cpp,$(EMU)/tests/%,$(wildcard tests/emu/test_*.cpp))
EMU_LIB   := $(EMU)/bin/librlhf_cuda.so
EMU_ALLFLAGS = $(CXX) $(EMU_FLAGS)
$(EMU)/flags: FORCE
	@mkdir -p $(EMU); echo '$(EMU_ALLFLAGS)' | cmp -s - $@ || echo '$(EMU_ALLFLAGS)' > $@
emu_compile = @mkdir -p $(@D); $(if $(V),,echo '  CXX  $@';) $(if $(V),set -x;) $(CXX) $(1) -MMD -MP -c -x c++ $< -o $@
$(EMU)/%.o: %.cu $(EMU)/flags
	$(call emu_compile,$(EMU_FLAGS))
$(EMU)/tests/emu/emu_%.o: tests/emu/emu_%.cpp $(EMU)/flags
	$(call emu_compile,$(EMU_BASE))
$(EMU)/tests/emu/test_%.o: tests/emu/test_%.cpp $(EMU)/flags
	$(call emu_compile,$(EMU_FLAGS))
$(EMU_LIB): $(EMU_OBJ)
	@mkdir -p $(@D); $(if $(V),,echo '  LD   $@';) $(CXX) -shared $(EMU_LD) $(EMU_DEFS) $^ -o $@
$(EMU_OWN): $(EMU)/tests/%: $(EMU)/tests/emu/%.o $(EMU_RT) $(BUILD)/librlhf.a
	@mkdir -p $(@D); $(CXX) $(EMU_LD) $^ $(LIBS) -o $@
EMU_TESTS := $(patsubst $(BUILD)/%,$(EMU)/%,$(filter %/test_ops %/test_cuda %/test_generate %/test_units,$(TESTS)))
EMU_PROGS := $(PROGRAMS:$(BUILD)/%=$(EMU)/%)
ifneq ($(RACES),)
$(EMU)/tests/test_ops: $(OPS_SRC:%.c=$(BUILD)/%.o) $(BUILD)/librlhf.a
	@mkdir -p $(@D); $(CXX) $(EMU_LD) $^ $(LIBS) -o $@
$(EMU)/tests/test_%: $(BUILD)/tests/unit/test_%.o $(BUILD)/librlhf.a
	@mkdir -p $(@D); $(CXX) $(EMU_LD) $^ -lcmocka $(LIBS) -o $@
else
$(EMU_TESTS) $(EMU_PROGS): $(EMU)/%: $(BUILD)/%
	@mkdir -p $(@D); ln -f $< $@ 2>/dev/null || cp -f $< $@
endif
emu-tests: $(EMU_LIB) $(EMU_TESTS) $(EMU_OWN)
emu: emu-tests $(EMU_PROGS)

$(BUILD)/librlhf.a: $(LIB_OBJ)
	@rm -f $@; ar rcs $@ $^
$(BUILD)/librlhf64.a: $(OBJ64)
	@rm -f $@; ar rcs $@ $^

define program_rule
$(BUILD)/bin/$(call prog,$(1)): $(BUILD)/$(1:%.c=%.o) $(BUILD)/librlhf.a
	@mkdir -p $$(@D); $(if $(V),,echo '  LD   $$@';) $(CC) $(CFLAGS_ALL) $$^ $(LIBS) -o $$@
endef
$(foreach m,$(MAINS),$(eval $(call program_rule,$(m))))

$(BUILD)/tests/test_%: $(BUILD)/tests/unit/test_%.o $(BUILD)/librlhf.a
	@mkdir -p $(@D); $(CC) $(CFLAGS_ALL) $^ -lcmocka $(LIBS) -o $@
$(BUILD)/tests/test_grad: $(OPS_SRC:%.c=$(BUILD)/f64/%.o) $(BUILD)/librlhf64.a
	@mkdir -p $(@D); $(CC) $(CFLAGS_ALL) $^ $(LIBS) -o $@
$(BUILD)/tests/test_grad_model: $(BUILD)/f64/tests/grad_model.o $(BUILD)/librlhf64.a
	@mkdir -p $(@D); $(CC) $(CFLAGS_ALL) $^ -lcmocka $(LIBS) -o $@
$(BUILD)/tests/test_ops: $(OPS_SRC:%.c=$(BUILD)/%.o) $(BUILD)/librlhf.a
	@mkdir -p $(@D); $(CC) $(CFLAGS_ALL) $^ $(LIBS) -o $@
$(FUZZ): $(BUILD)/tests/fuzz_%: $(BUILD)/tests/fuzz/fuzz_%.o $(BUILD)/tests/fuzz/file.o $(BUILD)/tests/fuzz/driver.o $(BUILD)/librlhf.a
	@mkdir -p $(@D); $(CC) $(CFLAGS_ALL) $^ $(LIBS) -o $@
$(BUILD)/tests/test_exact: $(EXACT_SRC:%.c=$(BUILD)/%.o) $(BUILD)/librlhf.a
	@mkdir -p $(@D); $(CC) $(CFLAGS_ALL) $^ -lcmocka $(LIBS) -o $@
# the program has the name of its folder, so its objects stand beside it
$(BUILD)/tests/bench_%.o: tests/bench/%.c $(BUILD)/flags
	$(call compile,)
$(BUILD)/tests/bench: $(BENCH_SRC:tests/bench/%.c=$(BUILD)/tests/bench_%.o) $(BUILD)/librlhf.a
	@mkdir -p $(@D); $(CC) $(CFLAGS_ALL) $^ $(LIBS) -o $@

-include $(shell test -d $(BUILD) && find $(BUILD) -name '*.d' -not -path '$(BUILD)/san-*' 2>/dev/null)
.SECONDARY:

# ---- what people run
deps:
	sh tests/deps.sh $(PACKAGES)
JOBS := $(shell nproc 2>/dev/null || echo 2)
demo:
	@tests/ensure-deps.sh && $(MAKE) -s -j$(JOBS) programs && sh rlhf/demo/run.sh $(BUILD)
demo-controls:
	@tests/ensure-deps.sh && $(MAKE) -s -j$(JOBS) programs && sh rlhf/demo/controls.sh $(BUILD)
lint:
	@sh tests/lint.sh
test:
	@tests/ensure-deps.sh && $(MAKE) -s -j$(JOBS) programs tests $(wildcard $(CUDA_LIB)) && sh tests/run.sh test $(BUILD)
check:
	@tests/ensure-deps.sh && sh tests/run.sh check $(BUILD)
check-emu:
	@tests/ensure-deps.sh && sh tests/run.sh check-emu $(BUILD)
check-long:
	@tests/ensure-deps.sh && sh tests/run.sh check-long $(BUILD)
# sources, libraries and small data for a machine with a card that has no packages; there: tests/gpu/run.sh
gpu-bundle:
	@sh tests/gpu/bundle.sh $(BUILD)/gpu-bundle/deps && git archive HEAD | tar -x -C $(BUILD)/gpu-bundle && \
	tar -C $(BUILD) -czf $(BUILD)/rlhf-gpu-bundle.tar.gz gpu-bundle && ls -la $(BUILD)/rlhf-gpu-bundle.tar.gz
# BENCH_ARGS: see build/tests/bench --help
bench: all $(BUILD)/tests/bench $(BUILD)/tests/test_ops
	$(BUILD)/tests/bench --out $(BUILD) $(BENCH_ARGS)
install: all
	install -d $(DESTDIR)$(PREFIX)/bin && install $(PROGRAMS) $(DESTDIR)$(PREFIX)/bin
fmt:
	git ls-files '*.c' '*.h' | xargs clang-format -i
compile_commands.json: FORCE
	bear -- $(MAKE) -B all tests
config:
	@echo "CC=$(CC) BUILD=$(BUILD) libraries=$(if $(HAVE_LIBS),found,missing) cuda=$(CUDA_TEXT) nccl=no mpi=no"
clean:
	rm -rf build compile_commands.json
