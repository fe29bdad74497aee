/*
 * The probe for amd64 guests: firmware that climbs from real mode to long mode and says how far it came.
 *
 * It is the last page of a 64 KiB image given to QEMU with -bios, so it runs at 0xfffff000 upwards with the
 * reset vector at 0xfffffff0. It uses no interrupts. The RAM it uses is 0x1000-0x5fff.
 *
 * Each step writes one letter to the debug console, port 0xe9 (-device isa-debugcon):
 *   R  an instruction ran in real mode
 *   P  32-bit protected mode
 *   L  64-bit long mode with paging
 *   S  an SSE2 instruction gave the right result
 *   T  the counted loop ended
 * and the machine leaves through port 0xf4 (-device isa-debug-exit) with QEMU's exit code 33.
 *
 * Assemble:  as --64 -o amd64.o amd64.S
 * Link:      ld -Ttext=0xfffff000 -e reset --oformat=elf64-x86-64 -o amd64.elf amd64.o
 * Extract:   objcopy -O binary -j .text amd64.elf amd64.bin
 */
        .set    ROUNDS, 10000000

        .macro  say letter
        mov     $\letter, %al
        out     %al, $0xe9
        .endm

        .text
        .code16
        .globl  reset, start
start:
        cli
        say     'R'
        lgdtl   %cs:(gdt_pointer - start + 0xf000)
        mov     %cr0, %eax
        and     $0x9fffffff, %eax               /* caches on: CD and NW off */
        or      $1, %eax                        /* PE */
        mov     %eax, %cr0
        ljmpl   $0x08, $protected

        .code32
protected:
        mov     $0x10, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        say     'P'

        /* Page tables: the first 2 MiB and the last 2 MiB of the first 4 GiB, each mapped to itself. */
        xor     %eax, %eax
        mov     $0x1000, %edi
        mov     $0x1000, %ecx
        cld
        rep stosl
        movl    $0x2003, 0x1000                 /* PML4[0] -> PDPT at 0x2000 */
        movl    $0x3003, 0x2000                 /* PDPT[0] -> PD at 0x3000 */
        movl    $0x4003, 0x2018                 /* PDPT[3] -> PD at 0x4000 */
        movl    $0x00000083, 0x3000             /* a page of 2 MiB at 0 */
        movl    $0xffe00083, 0x4ff8             /* a page of 2 MiB at 4 GiB - 2 MiB */
        mov     $0x1000, %eax
        mov     %eax, %cr3
        mov     $0x620, %eax                    /* PAE, OSFXSR, OSXMMEXCPT */
        mov     %eax, %cr4
        mov     $0xc0000080, %ecx               /* EFER */
        rdmsr
        or      $0x100, %eax                    /* LME */
        wrmsr
        mov     %cr0, %eax
        or      $0x80000002, %eax               /* PG, MP */
        and     $0xfffffff3, %eax               /* EM and TS off */
        mov     %eax, %cr0
        ljmpl   $0x18, $long

        .code64
long:
        say     'L'

        mov     $21, %eax
        movd    %eax, %xmm0
        paddd   %xmm0, %xmm0
        movd    %xmm0, %ebx
        cmp     $42, %ebx
        jne     stop
        say     'S'

        mov     $0x6000, %esp
        mov     $ROUNDS, %ebp
        mov     $0x5000, %edi
round:
        call    mix
        dec     %ebp
        jnz     round
        say     'T'

        mov     $0x10, %eax
        out     %eax, $0xf4
stop:
        hlt
        jmp     stop

/*
 * One round: what an emulator pays for and a processor does not - loads, stores, flags, an indirect jump (the
 * return) - in chains that do not depend on each other.
 */
mix:
        mov     (%rdi), %eax
        mov     64(%rdi), %ebx
        mov     128(%rdi), %ecx
        mov     192(%rdi), %edx
        add     $3, %eax
        adc     $5, %ebx
        xor     $0x55, %ecx
        lea     7(%rdx), %edx
        mov     %eax, 256(%rdi)
        mov     %ebx, 320(%rdi)
        mov     %ecx, 384(%rdi)
        mov     %edx, 448(%rdi)
        ret

        .balign 8
gdt:
        .quad   0
        .quad   0x00cf9b000000ffff              /* 0x08: code, 32 bits */
        .quad   0x00cf93000000ffff              /* 0x10: data */
        .quad   0x00af9b000000ffff              /* 0x18: code, 64 bits */
gdt_pointer:
        .word   . - gdt - 1
        .long   gdt

        .org    0xff0
        .code16
reset:
        jmp     start
        .org    0x1000, 0xf4
