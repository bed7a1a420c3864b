package guard

// publishedTokens: see published.
var publishedTokens = map[uint64]bool{
	// Google's keys in the tests and samples of the Firebase SDKs.
	0x2037abcaffb2b777: true, 0x3f370c9dd8225c63: true, 0xe4a5542bb7fd7b67: true, 0xa19f89ab3555eac1: true,
	0x0b476bdf9acf2123: true, 0xeb540d2b6ee2a0a4: true, 0x37f8f09bdf12c2f2: true, 0x8731261cb72d8626: true,
	0x49f777db995e8260: true, 0x27a9a42931dff7eb: true, 0xdc0fcf046c61640c: true, 0x4c98242dcadc8b29: true,
	0xea9bb1082cf95663: true, 0x3a8b61d0f636b007: true, 0xa6c814bc555ae62c: true,
	// The accounts of Azure's emulators of Storage and of Cosmos DB.
	0x0011cc25eb432071: true, 0xaa6547439583c3a2: true,
	// The test keys in Stripe's documentation.
	0x2cafc0970149a84f: true, 0xf2d6ca16515033e5: true,
	// The passwords in Microsoft's reference of nuget.config.
	0xdba72c00f41f4e4c: true, 0xa0702bc91d699f60: true,
	// The key for the search in the pages of Yarn, which every visitor gets.
	0x2f21fd9c81678e39: true,
}
