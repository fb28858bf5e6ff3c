# The firmware of a guest that proves a processor fit for Linux: it enters long mode, takes an interrupt there and
# returns from it (iretq), runs cmpxchg16b, and says so by a write to the isa-debug-exit port. A KVM that only
# emulates guests opens and starts well, and stops at one of these. 64 KiB, mapped to end at 4 GiB.
# Built by `as proof.S -o proof.o && ld -e 0 -Ttext=0 --oformat binary -o proof proof.o`; its code is in ../binaries.py.

        .intel_syntax noprefix
        .set rom, 0xffff0000            # linear address of the first byte
        .set pages, 0x10000             # page tables, in RAM
        .set idt, 0x8000
        .set cell, 0x9000
        .set stack, 0x7000

        .code32
protected:
        mov     ax, 0x10
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     esp, stack
        cld
        mov     edi, pages              # PML4, PDPT, two page directories: all empty
        xor     eax, eax
        mov     ecx, 0x4000 / 4
        rep     stosd
        mov     dword ptr [pages], pages + 0x1003
        mov     dword ptr [pages + 0x1000], pages + 0x2003
        mov     dword ptr [pages + 0x1018], pages + 0x3003
        mov     dword ptr [pages + 0x2000], 0x83                # 0 to 2 MiB
        mov     dword ptr [pages + 0x3ff8], 0xffe00083          # the last 2 MiB below 4 GiB
        mov     eax, cr4
        or      eax, 0x20                                       # PAE
        mov     cr4, eax
        mov     eax, pages
        mov     cr3, eax
        mov     ecx, 0xc0000080                                 # EFER
        rdmsr
        or      eax, 0x100                                      # LME
        wrmsr
        mov     eax, cr0
        or      eax, 0x80000000                                 # PG
        mov     cr0, eax
        .byte   0xea                                            # far jump into the 64-bit segment
        .long   rom + long
        .word   0x18

        .code64
long:   mov     edi, idt + 0x20 * 16                            # the gate of interrupt 0x20
        mov     eax, offset rom + handler
        mov     word ptr [rdi], ax
        mov     word ptr [rdi + 2], 0x18
        mov     word ptr [rdi + 4], 0x8e00                      # interrupt gate, present
        shr     eax, 16
        mov     word ptr [rdi + 6], ax
        mov     dword ptr [rdi + 8], 0
        mov     dword ptr [rdi + 12], 0
        lidt    [rip + idt_pointer]
        xor     ebx, ebx
        int     0x20
        cmp     ebx, 0x2a
        jne     failed
        mov     edi, cell
        xor     eax, eax
        mov     [rdi], rax
        mov     [rdi + 8], rax
        cdq
        mov     ebx, 7
        mov     ecx, 9
        lock cmpxchg16b [rdi]
        jne     failed
        cmp     dword ptr [rdi + 8], 9
        jne     failed
        mov     al, 0x2a                                        # qemu exits with 2 * 0x2a + 1
        jmp     tell
failed: mov     al, 1
tell:   mov     dx, 0xf4
        out     dx, al
1:      hlt
        jmp     1b

handler:
        mov     ebx, 0x2a
        iretq

        .balign 8
gdt:    .quad   0
        .quad   0x00cf9b000000ffff                              # 0x08: 32-bit code
        .quad   0x00cf93000000ffff                              # 0x10: data
        .quad   0x00af9b000000ffff                              # 0x18: 64-bit code
gdt_pointer:
        .word   gdt_pointer - gdt - 1
        .long   rom + gdt
idt_pointer:
        .word   0x21 * 16 - 1
        .quad   idt

        .code16
real:   cli
        .byte   0x66                                    # a 32-bit base
        lgdt    cs:[gdt_pointer]                        # cs begins at `rom`
        mov     eax, cr0
        or      al, 1
        mov     cr0, eax
        .byte   0x66, 0xea                                      # far jump with a 32-bit offset
        .long   rom + protected
        .word   0x08
code_end:

        .org    0xfff0                                          # where the processor starts
        jmp     real
        .org    0x10000
