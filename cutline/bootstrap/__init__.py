"""Caption bootstrapping (CapFilt): synthetic captions for web images, and a filter over both kinds."""
