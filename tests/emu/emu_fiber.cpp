/* emu_fiber.cpp - fibers: 40 ns a switch by ten instructions on x86-64, ucontext elsewhere (or with
 * -DEMU_UCONTEXT). Sanitizers are told of every switch; a switch orders nothing for the race
 * checker. A fiber lives as long as the process: the scheduler keeps a pool. */
#include "tests/emu/emu_fiber.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#if !defined(__x86_64__) && !defined(EMU_UCONTEXT)
#define EMU_UCONTEXT
#endif
#ifdef EMU_UCONTEXT
#include <ucontext.h>
#endif
#ifdef EMU_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef EMU_TSAN
extern "C" void *__tsan_get_current_fiber(void);
extern "C" void *__tsan_create_fiber(unsigned flags);
extern "C" void __tsan_switch_to_fiber(void *fiber, unsigned flags);
enum { NO_SYNC = 1 };
#endif

enum { STACK_BYTES = 256 << 10, GUARD_BYTES = 4096 };

struct EmuFiber {
    void *sp;
    void (*entry)(EmuFiber *);
    char *stack; /* lowest address */
    size_t stack_bytes;
    void *fake_stack, *tsan;
#ifdef EMU_UCONTEXT
    ucontext_t context;
#endif
};

static void landed(EmuFiber *self)
{
#ifdef EMU_ASAN
    __sanitizer_finish_switch_fiber(self->fake_stack, NULL, NULL);
#else
    (void)self;
#endif
}

extern "C" __attribute__((noreturn, used, visibility("hidden"))) void emu_fiber_begin(EmuFiber *self)
{
    landed(self);
    self->entry(self);
    abort();
}

#ifdef EMU_UCONTEXT
static void begin_halves(unsigned high, unsigned low)
{
    emu_fiber_begin((EmuFiber *)((uintptr_t)high << 32 | low));
}

static void prepare(EmuFiber *f)
{
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = f->stack_bytes;
    uintptr_t p = (uintptr_t)f;
    makecontext(&f->context, (void (*)(void))begin_halves, 2, (unsigned)(p >> 32), (unsigned)p);
}

static void jump(EmuFiber *from, EmuFiber *to)
{
    swapcontext(&from->context, &to->context);
}
#else
/* void emu_switch(void **save, void *sp): what the ABI lets a call keep goes onto the old stack */
asm(".text\n.hidden emu_switch\n.globl emu_switch\n.type emu_switch, @function\nemu_switch:\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
    "mov %rsp, (%rdi)\nmov %rsi, %rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n"
    ".size emu_switch, .-emu_switch\n"
    ".hidden emu_enter\n.globl emu_enter\n.type emu_enter, @function\nemu_enter:\n"
    "mov %rbx, %rdi\nxor %ebp, %ebp\ncall emu_fiber_begin\nud2\n"
    ".size emu_enter, .-emu_enter\n");
extern "C" void emu_switch(void **save, void *sp);
extern "C" void emu_enter(void);

static void prepare(EmuFiber *f)
{
    void **top = (void **)(f->stack + f->stack_bytes);
    *--top = NULL; /* keeps the stack a multiple of 16 at emu_enter's call */
    *--top = NULL;
    *--top = (void *)emu_enter;
    *--top = NULL; /* rbp */
    *--top = f;    /* rbx */
    for (int i = 0; i < 4; i++)
        *--top = NULL;
    f->sp = top;
}

static void jump(EmuFiber *from, EmuFiber *to)
{
    emu_switch(&from->sp, to->sp);
}
#endif

EmuFiber *emu_fiber_make(void (*entry)(EmuFiber *))
{
    EmuFiber *f = (EmuFiber *)calloc(1, sizeof *f);
    char *p = (char *)mmap(NULL, GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!f || p == MAP_FAILED || mprotect(p, GUARD_BYTES, PROT_NONE) < 0) {
        fputs("emu: no memory for a fiber\n", stderr);
        abort();
    }
    f->entry = entry;
    f->stack = p + GUARD_BYTES;
    f->stack_bytes = STACK_BYTES;
#ifdef EMU_TSAN
    f->tsan = __tsan_create_fiber(0);
#endif
    prepare(f);
    return f;
}

EmuFiber *emu_fiber_main(void)
{
    static thread_local EmuFiber f;
#ifdef EMU_ASAN
    if (!f.stack) {
        pthread_attr_t attr;
        void *low = NULL;
        pthread_getattr_np(pthread_self(), &attr);
        pthread_attr_getstack(&attr, &low, &f.stack_bytes);
        pthread_attr_destroy(&attr);
        f.stack = (char *)low;
    }
#endif
#ifdef EMU_TSAN
    f.tsan = __tsan_get_current_fiber();
#endif
    return &f;
}

void emu_fiber_switch(EmuFiber *from, EmuFiber *to)
{
#ifdef EMU_TSAN
    __tsan_switch_to_fiber(to->tsan, NO_SYNC);
#endif
#ifdef EMU_ASAN
    __sanitizer_start_switch_fiber(&from->fake_stack, to->stack, to->stack_bytes);
#endif
    jump(from, to);
    landed(from);
}
