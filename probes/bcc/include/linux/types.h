/* SPDX-License-Identifier: GPL-2.0 */
/*
 * For a machine without kernel headers: what BCC's own headers need in order to compile a program
 * that takes nothing else from the kernel's. The tree is no copy of kernel headers.
 */
#ifndef SLTRACE_BCC_LINUX_TYPES_H
#define SLTRACE_BCC_LINUX_TYPES_H

/* BCC refuses to go on without it. */
#define CONFIG_BPF_SYSCALL 1

typedef unsigned char u8;
typedef signed char s8;
typedef unsigned short u16;
typedef short s16;
typedef unsigned int u32;
typedef int s32;
typedef unsigned long long u64;
typedef long long s64;
typedef u8 __u8;
typedef s8 __s8;
typedef u16 __u16;
typedef s16 __s16;
typedef u32 __u32;
typedef s32 __s32;
typedef u64 __u64;
typedef s64 __s64;
typedef __u16 __be16;
typedef __u16 __sum16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef u8 uint8_t;
typedef u16 uint16_t;
typedef u32 uint32_t;
typedef u64 uint64_t;
typedef s64 int64_t;
typedef __SIZE_TYPE__ size_t;
typedef __UINTPTR_TYPE__ uintptr_t;
typedef int pid_t;
typedef _Bool bool;

enum { false, true };

#define NULL                  ((void *)0)
#define offsetof(type, field) __builtin_offsetof(type, field)
#define __aligned_u64         __u64 __attribute__((aligned(8)))
#define __always_inline       inline __attribute__((always_inline))

#endif
