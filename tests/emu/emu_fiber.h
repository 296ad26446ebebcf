/* emu_fiber.h - stacks and the switch between them; for emu_sched.cpp alone. */
#ifndef RLHF_EMU_FIBER_H
#define RLHF_EMU_FIBER_H

#include <stddef.h>

struct EmuFiber;
struct EmuFiber *emu_fiber_make(void (*entry)(struct EmuFiber *self)); /* its entry never returns */
struct EmuFiber *emu_fiber_main(void); /* the caller, on its own stack; call it at every launch */
void emu_fiber_switch(struct EmuFiber *from, struct EmuFiber *to);

/* For the race checker: what happened before the release happens before the acquire. */
#ifdef EMU_TSAN
extern "C" void __tsan_acquire(void *key);
extern "C" void __tsan_release(void *key);
#define EMU_ACQUIRE(key) __tsan_acquire((void *)(key))
#define EMU_RELEASE(key) __tsan_release((void *)(key))
#else
#define EMU_ACQUIRE(key) ((void)(key))
#define EMU_RELEASE(key) ((void)(key))
#endif

#endif
