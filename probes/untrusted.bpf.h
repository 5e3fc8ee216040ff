/* SPDX-License-Identifier: GPL-2.0 */
/* Pointers to follow. */
#ifndef SLTRACE_UNTRUSTED_BPF_H
#define SLTRACE_UNTRUSTED_BPF_H

extern void *bpf_rdonly_cast(const void *object, u32 btf_id) __ksym __weak;

/*
 * The same pointer, to follow others from. At each such step from an argument of a tracepoint, on
 * each way to it, the verifier looks through all types of the kernel up to four times, to learn
 * whether it may trust what it gets (btf_nested_type_is_trusted): 52 of the 73 ms that
 * sched_switch took to load (6.18, measured). Nothing here needs that. The call is a register's
 * move in the end; kernels before 6.2 have neither it nor the search.
 */
#define UNTRUSTED(pointer)                                                                         \
	((typeof(pointer))(bpf_rdonly_cast ? bpf_rdonly_cast(pointer, bpf_core_type_id_kernel(     \
									  typeof(*pointer)))       \
					   : (const void *)pointer))

#endif
