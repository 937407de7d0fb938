//! FAT for the ESP.
