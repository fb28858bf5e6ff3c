# A guest that proves a processor fit for Linux: in long mode it takes an interrupt and returns from it (iretq), takes
# one that the local APIC delivers, and runs cmpxchg16b. It says how far it is by writes to a port. A KVM that only
# emulates guests opens and starts well, and stops at one of these.
# Entered in long mode with 4 GiB mapped, at `code`. Its stack is there already.
# Built by `as proof.S -o proof.o && ld -e 0 -Ttext=0x10000 --oformat binary -o proof proof.o`; the code is in ../prove.py.

        .intel_syntax noprefix
        .code64
        .set port, 0xf4
        .set idt, 0x18000
        .set cell, 0x19000
        .set stack, 0x1a000
        .set apic, 0xfee00000                   # IA32_APIC_BASE after reset, SDM 3A 11.4.4
        .set code_segment, 0x10
        .set tries, 100000

code:   mov     esp, stack
        mov     al, 1
        out     port, al                        # it runs
        mov     al, 0xff
        out     0x21, al                        # nothing from the PICs
        out     0xa1, al
        mov     edi, idt + 0x20 * 16
        mov     eax, offset called
        call    set_gate
        mov     edi, idt + 0x21 * 16
        mov     eax, offset delivered
        call    set_gate
        lidt    [rip + idt_pointer]
        xor     ebx, ebx
        xor     ebp, ebp
        int     0x20
        cmp     ebx, 0x2a
        jne     failed
        mov     al, 2
        out     port, al

        mov     edi, apic
        mov     dword ptr [rdi + 0xf0], 0x1ff   # spurious vector register: enabled, SDM 3A 11.9
        sti
        mov     dword ptr [rdi + 0x300], 0x44021 # interrupt command: fixed, assert, to itself, 11.6.1
        mov     ecx, tries
1:      cmp     ebp, 0x2a
        je      2f
        pause
        dec     ecx
        jnz     1b
        jmp     failed
2:      cli
        mov     al, 3
        out     port, al

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
        mov     al, 0x2a
        jmp     tell
failed: mov     al, 0xff
tell:   out     port, al
1:      hlt
        jmp     1b

set_gate:                                       # of the handler eax, at rdi: SDM 3A, figure 6-8
        mov     word ptr [rdi], ax
        mov     word ptr [rdi + 2], code_segment
        mov     word ptr [rdi + 4], 0x8e00      # interrupt gate, present
        shr     eax, 16
        mov     dword ptr [rdi + 6], eax
        mov     dword ptr [rdi + 10], 0
        ret

called: mov     ebx, 0x2a
        iretq

delivered:
        mov     ebp, 0x2a
        mov     dword ptr [rdi + 0xb0], 0       # end of interrupt, SDM 3A 11.8.5
        iretq

        .balign 8
idt_pointer:
        .word   0x22 * 16 - 1
        .quad   idt
