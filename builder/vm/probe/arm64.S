/*
 * The probe for arm64 guests: firmware for QEMU's `virt` machine that turns the MMU on and says how far it
 * came.
 *
 * It is given with -bios and starts at address 0 in EL1. It uses no interrupts. The RAM it uses
 * is the first 12 KiB at 0x40000000. QEMU's documentation of `virt` gives the addresses: flash at 0, the
 * PL011 serial line at 0x09000000, RAM at 0x40000000.
 *
 * Each step writes one letter to the serial line:
 *   R  an instruction ran at EL1, the MMU off
 *   L  the MMU is on
 *   S  a vector instruction gave the right result
 *   T  the counted loop ended
 * and the machine is switched off by PSCI SYSTEM_OFF, called by HVC (the conduit of `virt` where neither
 * EL2 nor EL3 is given to the guest).
 *
 * Assemble:  llvm-mc -triple=aarch64 -filetype=obj -o arm64.o arm64.S
 *            (or: aarch64-linux-gnu-as -o arm64.o arm64.S)
 * Extract:   llvm-objcopy -O binary -j .text arm64.o arm64.bin
 */
        .set    ROUNDS, 10000000

        .macro  say letter
        mov     w0, #\letter
        str     w0, [x20]
        .endm

        .text
        mov     x20, #0x09000000
        mov     x21, #0x40000000
        say     'R'

        /*
         * Translation tables, 39 bits of address, pages of 4 KiB. Level 1 at 0x40000000: entry 0 leads to
         * level 2, entry 1 is the gigabyte of RAM. Level 2 at 0x40001000: entry 0 is the flash, entry 72
         * the serial line, each 2 MiB.
         */
        mov     x1, x21
        mov     x2, #1024
clear:
        str     xzr, [x1], #8
        subs    x2, x2, #1
        b.ne    clear

        add     x1, x21, #0x1000
        orr     x3, x1, #3
        str     x3, [x21]
        mov     x3, #0x701                      /* access flag, inner shareable, attribute 0, block */
        str     x3, [x1]
        mov     x3, #0x405                      /* access flag, attribute 1, block */
        movk    x3, #0x0900, lsl #16
        movk    x3, #0x0060, lsl #48            /* never executable */
        str     x3, [x1, #576]
        mov     x3, #0x701
        movk    x3, #0x4000, lsl #16
        movk    x3, #0x0060, lsl #48
        str     x3, [x21, #8]

        mov     x3, #0x00ff                     /* attribute 0: normal, write-back; 1: device nGnRnE */
        msr     mair_el1, x3
        mov     x3, #0x0019                     /* T0SZ 25, table walks not cached */
        movk    x3, #0x0080, lsl #16            /* no walks through TTBR1 */
        movk    x3, #0x0001, lsl #32            /* 36 bits of physical address */
        msr     tcr_el1, x3
        msr     ttbr0_el1, x21
        dsb     sy
        tlbi    vmalle1
        ic      iallu
        dsb     sy
        isb
        mrs     x3, sctlr_el1
        mov     x4, #0x1005                     /* MMU, data cache, instruction cache */
        orr     x3, x3, x4
        msr     sctlr_el1, x3
        isb
        say     'L'

        mov     x3, #0x300000                   /* CPACR_EL1.FPEN: no trap on vector instructions */
        msr     cpacr_el1, x3
        isb
        mov     w3, #21
        dup     v0.4s, w3
        add     v0.4s, v0.4s, v0.4s
        umov    w3, v0.s[2]
        cmp     w3, #42
        b.ne    stop
        say     'S'

        add     x1, x21, #0x2000
        mov     w2, #(ROUNDS & 0xffff)
        movk    w2, #(ROUNDS >> 16), lsl #16
round:
        bl      mix
        subs    w2, w2, #1
        b.ne    round
        say     'T'

        mov     w0, #0x0008
        movk    w0, #0x8400, lsl #16            /* PSCI SYSTEM_OFF */
        hvc     #0
stop:
        wfi
        b       stop

/*
 * One round: what an emulator pays for and a processor does not - loads, stores, flags, an indirect jump (the
 * return) - in chains that do not depend on each other.
 */
mix:
        ldr     w3, [x1]
        ldr     w4, [x1, #64]
        ldr     w5, [x1, #128]
        ldr     w6, [x1, #192]
        adds    w3, w3, #3
        adc     w4, w4, w3
        eor     w5, w5, #0x55555555
        add     w6, w6, #7
        str     w3, [x1, #256]
        str     w4, [x1, #320]
        str     w5, [x1, #384]
        str     w6, [x1, #448]
        ret
