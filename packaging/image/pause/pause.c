/*
 * The program of a sandbox: it waits, and ends at SIGTERM or SIGINT. It holds a
 * network namespace for a honeypot, which can so crash and come back without
 * losing its interface and its address.
 *
 * It has no libc: one runs for each honeypot, and what is not there needs
 * neither memory nor an update. build.sh builds it.
 */

/* One bit a signal, from 1, as the kernel has its sigset_t on 64-bit machines. */
#define BIT(signal) (1UL << ((signal) - 1))

enum { SIGINT = 2, SIGTERM = 15, SIG_BLOCK = 0 };

#if defined(__x86_64__)
enum { SYS_RT_SIGPROCMASK = 14, SYS_RT_SIGTIMEDWAIT = 128, SYS_EXIT_GROUP = 231 };

static long call(long number, long a, long b, long c, long d)
{
	long result;
	register long fourth __asm__("r10") = d;
	__asm__ volatile("syscall" : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth)
			 : "rcx", "r11", "memory");
	return result;
}
#elif defined(__aarch64__)
enum { SYS_RT_SIGPROCMASK = 135, SYS_RT_SIGTIMEDWAIT = 137, SYS_EXIT_GROUP = 94 };

static long call(long number, long a, long b, long c, long d)
{
	register long n __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(n), "r"(x1), "r"(x2), "r"(x3) : "memory");
	return x0;
}
#else
#error "no system calls for this processor yet"
#endif

__attribute__((noreturn, used)) void _start(void)
{
	unsigned long ends = BIT(SIGTERM) | BIT(SIGINT);

	/* The kernel drops a signal that the first process of a container has
	 * neither handled nor blocked; a blocked one it keeps for us. */
	call(SYS_RT_SIGPROCMASK, SIG_BLOCK, (long)&ends, 0, sizeof ends);
	/* Anything but a signal number is an interruption, such as a SIGCONT. */
	while (call(SYS_RT_SIGTIMEDWAIT, (long)&ends, 0, 0, sizeof ends) <= 0)
		;
	for (;;)
		call(SYS_EXIT_GROUP, 0, 0, 0, 0);
}
