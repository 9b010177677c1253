// The configuration of the OHIF viewer when this archive serves it. OHIF itself is npm's, unchanged: whatever is
// particular about reading from here is configuration, and can be copied to another OHIF (docs/viewers.md).

(() => {
  const ROOT = new URL("/dicomweb", location.href).href;

  // Image quality as Cornerstone3D counts it (Enums.ImageQualityStatus).
  const ADJACENT_REPLICATE = 3, FAR_REPLICATE = 1, LOSSY = 7;

  // Rungs of a frame: less of it, as a codestream that stands alone. `decodeLevel: 0`: decode all that came.
  const READABLE = { urlArguments: "quality=45", decodeLevel: 0, imageQualityStatus: LOSSY };
  const LOSSLESS = { streaming: false };

  // A slice of a CT or MR is shorter than what Cornerstone3D waits for before it first decodes, and other codecs than
  // HTJ2K are not decoded before they are there whole: such an image comes twice, once lossy at full size in a tenth of
  // the bytes, then whole.
  const TWICE = {
    stages: [{ id: "readable", retrieveType: "readable" }, { id: "lossless", retrieveType: "lossless" }],
    retrieveOptions: { readable: READABLE, lossless: LOSSLESS },
  };

  // A radiograph or a mammogram comes once: its bytes are in the order of its resolution levels, and it is decoded
  // again as they arrive. `minChunkSize` is when to look first; Cornerstone3D's own is 128 KiB.
  const STREAMED = {
    stages: [{ id: "streamed", retrieveType: "streamed" }],
    retrieveOptions: { streamed: { streaming: true, decodeLevel: 3, minChunkSize: 24 << 10 } },
  };
  const LARGE = 4 << 20; // bytes of decoded samples

  // What arrived lossy is short, and less of it would be no shorter.
  const AT_ONCE = { stages: [{ id: "lossless", retrieveType: "default" }], retrieveOptions: { default: LOSSLESS } };

  // Transfer Syntaxes of arrival: of images stored as HTJ2K in the order of its levels, and of lossy ones.
  const NATIVE = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"];
  const LEVELS = new Set([...NATIVE, "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"]);
  const LOSSY_ON_ARRIVAL = /^1\.2\.840\.10008\.1\.2\.4\.(50|51|81|91|111|112|203)$/;

  // A volume: first every fourth slice small, spread over its neighbours, then the others, then all of them whole.
  // `default` is what Cornerstone3D takes where it knows no stages: the whole.
  const nearby = [-1, 1, 2].map((offset) => ({
    offset, imageQualityStatus: Math.abs(offset) === 1 ? ADJACENT_REPLICATE : FAR_REPLICATE,
  }));
  const every = (offset, rung, priority) => ({
    id: `${rung}-${offset}`, decimate: 4, offset, retrieveType: rung, requestType: "thumbnail", priority,
    ...(rung === "lossless" ? {} : { nearbyFrames: nearby }),
  });
  const VOLUME = {
    stages: [
      { id: "first", positions: [0.5, 0, -1], retrieveType: "readable", requestType: "thumbnail", priority: 5, nearbyFrames: nearby },
      every(3, "readable", 6), every(1, "readable", 7), every(2, "readable", 8), every(0, "readable", 9),
      every(2, "lossless", 10), every(0, "lossless", 11), every(1, "lossless", 12), every(3, "lossless", 13),
    ],
    retrieveOptions: { default: LOSSLESS, readable: READABLE, lossless: LOSSLESS },
  };

  const size = (pixel) => pixel.rows * pixel.columns * (pixel.samplesPerPixel ?? 1) * ((pixel.bitsAllocated ?? 16) / 8);

  // The archive lists what an instance is at hand in, the Transfer Syntax of arrival first.
  function arrivalOf(imageId) {
    const instance = window.cornerstone.metaData.get("instance", imageId);
    return [instance?.AvailableTransferSyntaxUID].flat()[0] ?? NATIVE[0];
  }

  // The plan for an image of a stack.
  function planOf(imageId) {
    const pixel = window.cornerstone.metaData.get("imagePixelModule", imageId);
    const arrival = arrivalOf(imageId);
    if (LOSSY_ON_ARRIVAL.test(arrival)) return AT_ONCE;
    return LEVELS.has(arrival) && pixel?.rows && size(pixel) > LARGE ? STREAMED : TWICE;
  }

  const STACK = {
    create: () => ({
      loadImages(imageIds, listener) {
        const { ProgressiveRetrieveImages, utilities } = window.cornerstone;
        const plan = planOf(imageIds[0]);
        const { get, add } = utilities.imageRetrieveMetadataProvider;
        if (plan === AT_ONCE && get("imageRetrieveConfiguration", imageIds[0]) !== AT_ONCE) {
          // Fetched ahead in the same way. An entry of an image goes before that of its kind of viewport.
          for (const imageId of listener.getImageIds?.() ?? imageIds) add(imageId, AT_ONCE);
        }
        return ProgressiveRetrieveImages.createProgressive(plan).loadImages(imageIds, listener);
      },
    }),
    // What is fetched ahead of the reader: small. The whole follows for each slice that is looked at.
    retrieveOptions: { default: READABLE },
  };

  // Hanging protocols for reconstructions name this strategy (`nth`), which in OHIF fetches every slice whole.
  function loadInStages({ data: { viewportId, volumeInputArray } }) {
    for (const { volumeId } of volumeInputArray) {
      const volume = window.cornerstone.cache.getVolume(volumeId);
      if (volume?.load && !volume.loadStatus?.loading && !volume.loadStatus?.loaded) volume.load();
    }
    return new Map([[viewportId, volumeInputArray]]);
  }

  // OHIF gives the VOI LUT Function as a text, of which Cornerstone3D's loader takes the first letter, and then paints
  // nothing: mammograms stay black. Under the loader's second name for it the text is read whole.
  let asking = false;
  function wholeFunction(type, imageId) {
    if (type !== "voiLutModule" || asking) return undefined;
    asking = true;
    try {
      const found = window.cornerstone.metaData.get(type, imageId);
      if (typeof found?.voiLUTFunction !== "string") return found;
      return { ...found, voiLUTFunction: undefined, voiLutFunction: found.voiLUTFunction };
    } finally {
      asking = false;
    }
  }

  const progressive = {
    id: "pacs.progressive",
    // After OHIF's own extension has set what it prefers.
    onModeEnter({ servicesManager }) {
      const { imageRetrieveMetadataProvider } = window.cornerstone.utilities;
      imageRetrieveMetadataProvider.add("stack", STACK);
      imageRetrieveMetadataProvider.add("volume", VOLUME);
      servicesManager.services.hangingProtocolService.registerImageLoadStrategy("nth", loadInStages);
      const { metaData } = window.cornerstone;
      metaData.removeProvider(wholeFunction);
      metaData.addProvider(wholeFunction, 20_000);
    },
  };

  window.config = {
    name: "pacs",
    routerBasename: "/viewer",
    showStudyList: true,
    extensions: [progressive],
    modes: [],
    customizationService: { global: { "ohif.tours": { $set: [] } } },
    maxNumberOfWebWorkers: Math.max(1, Math.min(4, (navigator.hardwareConcurrency || 2) - 1)),
    maxNumRequests: { interaction: 100, thumbnail: 5, prefetch: 4 },
    showWarningMessageForCrossOrigin: false,
    showCPUFallbackMessage: false,
    showLoadingIndicator: true,
    strictZSpacingForVolumeViewport: true,
    investigationalUseDialog: { option: "never" },
    defaultDataSourceName: "pacs",
    dataSources: [{
      namespace: "@ohif/extension-default.dataSourcesModule.dicomweb",
      sourceName: "pacs",
      configuration: {
        friendlyName: "This archive",
        name: "pacs",
        qidoRoot: ROOT,
        wadoRoot: ROOT,
        wadoUriRoot: ROOT,
        qidoSupportsIncludeField: true,
        supportsFuzzyMatching: true,
        supportsWildcard: true,
        enableStudyLazyLoad: true,
        imageRendering: "wadors",
        thumbnailRendering: "thumbnail",
        thumbnailRequestStrategy: "fetch",
        dicomUploadEnabled: true,
        omitQuotationForMultipartRequest: true,
        singlepart: "bulkdata,video,pdf",
        bulkDataURI: { enabled: true },
      },
    }],
    httpErrorHandler: (error) => console.warn("the archive answered", error?.status ?? error),
  };
})();
