/* The codes of the HT cleanup pass, T.814 Annex C and Tables 2 and 3, and look-up tables of them.
 *
 * A code of Annex C says of a quad (two by two samples) which are significant (rho), whether its exponent is told
 * (u_off), and which exponents have known bits (e_k, e_1).
 */
#ifndef HT_TABLES_H
#define HT_TABLES_H

#include "target.h"

/* Each code is six hexadecimal digits: rho, e_k, e_1, then three that hold u_off in bit 8 and below it the codeword,
 * first bit lowest, with a one above its last bit. One string for each of the eight contexts of 7.3.5; first those of
 * the first row of quads, then those of the following ones. */
static const char *const ht_codes[2][8] = {{
    "20000840000a80000c100016a0002150002e300031c0003e600043ea8145b1014972014d444153cc4155fe215990005d544163cc8165"
    "ff416990016da88175ff817988817ddd8187ff518b55118fccc197f9919b33119fd111a7ffc1ab7000afff11b3b000b7ee41bb1111bf"
    "d541c7e221cb7221cfb111d7f000db3221dfd000e7fba1eb6001effe61f3aa21f7e000fb2221ff",
    "00000480001220001640001a10001ec00021720143cc4145fa214950004b90014db10151600053a88155ea815930005b88815d600163"
    "c88165fb816944416b90006dfe4171544173a00075d5417922217b30017df00087d0008fd1119711119ff881a7b000afe000b77000bf"
    "ff11c7b111cfe221d77221dfee41e7aa21efdd81f75511ff",
    "00000480001220001640001a10001e500021600043d88145f1114944414ba0014d731151551153c00055e2015911115b90015d554163"
    "c44165ff116930006ba0006df74171311173b20175dc417990007df32187b0008fd0009770009fe000a75551af7741b7ff81bb2221bf"
    "f000c78881cfcc81d76001dfdd11e77221efb221f7e221fb3321ff",
    "000008100014ff412250002680002a20002cff813240003655513aff113cdd4141311145b3214955114dfaa14ec44151764155a00059"
    "30005dff515edd1161771165a8816944416dff216ec0007155417590007911117dec817effc183888187e0008b77218fe44193aa2197"
    "d9919b66219ffe61a3bb11a7dd51ab7661afee21b39111b7cc81bb6000bfff31c3b111c7dd81cb2221cff000d39981d7d000db6441df"
    "fb91e3b000e7ddc1eb7000efee41f37731f7bb81fb3321ff",
    "00000480001220001640001a10001ea00021740143d10145f7214950004baa814d900051600053c00055ec815922215b88815d600163"
    "c88165f9116930006baa216dfb8171500173b00175e4417932217dd11187bb218fe0009770009ff000a7aaa1afcc41b7ff41bb1111bf"
    "f991c7b000cfd000d74441dfee21e77441ef9001f7f761fb3311ff",
    "000008800022ff212420002aff412c400032ff813410003aa0003cc00041764145ff1146aa214950004dee214eb98151600055f76156"
    "88815922215dd9815ebb2161622165900066aaa16930006ddd416eaa8171544175ee8176332179c8817efd9183b99187e6618b77318f"
    "f00093988197dd519b44419fffc1a3b000a7dd11ab6641afeea1b37711b7cc41bbffa1bd3311bff771c3bb31c7e000cb7000cfee41d3"
    "7661d7d000db3331dff751e39911e7d991eb5511efeec1f37721f7bb11fbff31fd1111ff",
    "000008100014ff212240002a20002c80003230003aff113cd54141111143764145ff8146b9114922214dff314ec00051511155ffc156"
    "a0005933115df6615ecc8161600065ff4166a2216933216dfea16ebb217150007577117690007933317dee817eccc187e2218b88818f"
    "f00093aa8197dc819b66419fff51a3bba1a7e000ab7731afd551b39111b7cc41bb4441bfb991c7ee21cb7661cfee41d39981d7d000db"
    "6221dffb91e3b000e7dd11eb7000efeec1f37721f7bb81fb5541ff",
    "ff1110ff8114ff4118ff211cffa122fff126ff312a000032ff513add1141100045771149ee814ea22151ffc156511159ee215ebb2161"
    "600169ff916e900171ff6176200079dd417ed00083774187bb318beea18d44418fbb8193f0009570009777519bdd819d33319fc881a3"
    "ffb1a57731a7b000abe661ad3311afbba1b3ffd1b56000b78881bbddc1bd2221bfcc41c37721c7b991cbeec1cd4000cfa000d3ff71d5"
    "5000d79000dbdd51dd3000dfc000e3ffe1e57661e7aa81ebe000ed3321efbb11f3ee41f55541f78000fbd991fd1111ff",
}, {
    "10000840000a80000c20000e600021888125a0002930002dc00031500035900039d00143444147a8814b90015322215770015bf1015d"
    "c8816311116750016bb0017330017be4017dd0008f70009fe000aff111b7aa21bfe441cfb000dfcc41eff000f76001ff",
    "00000280001110001520001940002d30003d50004390004bc00053f40163a00073d0008770008f888197f0009b22219fb000a7b001ab"
    "6000af4441b7e000bb3111bfc001c76001cf9001d7e001db3321dfa001e7f441eb5001ef7001f7d001fb1111ff",
    "000002200011100019800025400035500043c0004da0005d222163aa216d30007db00187f0008b70008fff8193700197d0019b33119f"
    "b000a7e441ab6000aff511b39000b7c001bb3221bfbb21c7e401cb6001cff721d39001d7d000db4441dfaa81e7e000eb5001eff441f3"
    "8881f7aaa1fb1111ff",
    "00000420001210001a80002630002e400036ff8141500043b00045c0014911114b90004df00051331153a00055bb215960005d75115e"
    "ff2161222163a22165c0006970006dd40171332173900175b8817951117dff117ef66187aa818fbb3197ff519b55419fe441a7ff41ab"
    "7441afd000b7ffa1bb4441bfec81c78881cfd441d7fa81db6001dfe000e7ee21eb7721efbb11f7f731fb3331ff",
    "000002800011400019c0002510002d200035e20143600053a0005d444163500073f3017dcc4187f3218b88818fa00197e2219b50019f"
    "ccc1a7f000ab6001af9001b7d001bb2221bfcc81c7f111cb7000cf7001d7e000db3000dfb000e7b001eb3001ef9000f7d000fb1111ff",
    "000004400012c0002620002a50002e800036f0003a10003eea8141888143d00045ffc14930014bb0004dff8151600053720155e00059"
    "30005ba0005dff2161700063c44165ff116944416ba0016dff4171544173b10175d5417911117b90007dff3187dd818ff9919790019f"
    "f761a7cc81afee41b72221bfffa1c7b111cfe221d77221dffd51e76001efd111f75511ff",
    "00000810001240001420001ca0002650002a800036c0003af00041111143888145aa214932214db0004ee0005160005590015930005d"
    "ff815eee816170006572216944416dff416ed0007154417590007922217dff217edd4187f7618baaa18fff5193ccc197e4419b73119f"
    "ff11a3cc41a7dd11ab5511afee21b3b221b7dc81bb6221bfbb11c7f331cbaa81cffb91d3ba81d7ee41db6641dfffc1e3cc81e7eea1eb"
    "7741efffa1f3bb21f7d441fb3311ff",
    "f00008000014ff1122700026ff212ad0002cff8132500036b0003aff413cffa141300043b32145d5414977114dffc14eff3151111153"
    "900055c0015960005dfb915ef76161200063a00065a0016940006dff516ee00071100073800075c0007951117dea817ed11187ee418b"
    "77318fbb1197dd819b55419f9001a7ff71ab7741af8881b7ee21bb3111bfdd11c7ffb1cb7441cf7721d7e221db4441dfb111e7fff1eb"
    "3321ef6001f7bb81fb2221ff",
}};

/* By row (0 for the first row of quads, 1 for the following ones) and context << 8 | rho << 4 | epsilon, which tells the
 * samples whose exponent is U_q if u_q is above 0, and else is 0. The code with the most known bits that fits:
 * e_k in bits 0 to 3, the length in 4 to 6, the codeword in 8 to 14, as many ones as it has bits in 16 to 22.
 * 0 where context and rho are 0: only MEL tells it. */
static uint32_t ht_encoder_codes[2][2048];

/* By row and context << 7 | the next seven bits: rho in bits 0 to 3, e_k in 4 to 7, e_1 in 8 to 11, u_off in 12, the
 * length in 13 to 15. */
static uint16_t ht_decoder_codes[2][1024];

/* MEL_E: the exponent of a run in each state. T.814 Table 2 */
static const uint8_t ht_run_exponents[13] = {0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5};

/* Of each u, 0 to 32 (without extension), in four bytes: prefix, its length, suffix, its length. T.814 Table 3 */
static uint32_t ht_u_codes[33];

static inline uint32_t ht_hexadecimal(const char *digits, int count)
{
    uint32_t value = 0;
    for (int i = 0; i < count; i++)
        value = value << 4 | (uint32_t)(digits[i] > '9' ? digits[i] - 'a' + 10 : digits[i] - '0');
    return value;
}

/* Enters one code into both look-up tables. */
static inline void ht_fill_code(int row, uint32_t context, uint32_t code)
{
    uint32_t rho = code >> 20, known = code >> 16 & 15, ones = code >> 12 & 15, u_off = code >> 8 & 1;
    uint32_t length = ht_bit_length(code & 0xff) - 1;
    uint32_t word = code & 0xff & ~(1u << length);
    for (uint32_t bits = word; bits < 128; bits += 1u << length)
        ht_decoder_codes[row][context << 7 | bits] =
                (uint16_t)(rho | known << 4 | ones << 8 | u_off << 12 | length << 13);
    uint32_t entry = known | length << 4 | word << 8 | ((1u << length) - 1) << 16;
    for (uint32_t epsilon = u_off; epsilon < (u_off ? 16 : 1); epsilon++) {
        uint32_t *best = &ht_encoder_codes[row][context << 8 | rho << 4 | epsilon];
        if ((epsilon & ~rho) == 0 && (epsilon & known) == ones &&
                (*best == 0 || ht_count_ones(known) > ht_count_ones(*best & 15)))
      *best = entry;
    }
}

static inline void ht_fill_u_codes(void)
{
    for (uint32_t u = 0; u < 5; u++) ht_u_codes[u] = u < 3 ? u | u << 8 : 4 | 3 << 8 | (u - 3) << 16 | 1 << 24;
    for (uint32_t u = 5; u < 33; u++) ht_u_codes[u] = 3 << 8 | (u - 5) << 16 | 5 << 24;
}

/* To be called once, before anything is encoded or decoded. */
static inline void ht_fill_tables(void)
{
    ht_fill_u_codes();
    memset(ht_encoder_codes, 0, sizeof ht_encoder_codes);
    for (int row = 0; row < 2; row++)
        for (uint32_t context = 0; context < 8; context++)
            for (const char *code = ht_codes[row][context]; *code; code += 6)
                ht_fill_code(row, context, ht_hexadecimal(code, 6));
}

#endif
